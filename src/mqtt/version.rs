//! The firmware version in a printer's answer to `get_version`.

use super::json::{self, Cursor, Value};

/// The version of the module `ota`, such as `01.09.01.00`: what slicers show as the firmware's. `None` if this
/// report is another one.
pub fn firmware(report: &[u8]) -> Option<&str> {
    let mut cursor = Cursor::new(report);
    cursor.enter_object().ok()?;
    // Every other report begins with another member, and is not walked.
    cursor.key().ok().flatten().filter(|key| key.text == b"info")?;
    let info = cursor.pass().ok()?;
    let modules = json::elements(member(info, b"module")?.text);
    let ota = modules.flatten().find(|module| text(*module, b"name") == Some(b"ota"))?;
    core::str::from_utf8(text(ota, b"sw_ver")?).ok()
}

fn member<'a>(object: Value<'a>, key: &[u8]) -> Option<Value<'a>> {
    json::members(object.text).flatten().find(|member| member.key.text == key).map(|it| it.value)
}

fn text<'a>(object: Value<'a>, key: &[u8]) -> Option<&'a [u8]> {
    member(object, key)?.string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_that_of_the_module_ota() {
        let answer = br#"{"info":{"command":"get_version","sequence_id":"20004","module":[
            {"name":"mc","sw_ver":"00.00.28.54","hw_ver":"MC02"},
            {"name":"ota","product_name":"P1S","sw_ver":"01.09.01.00","sn":"01P00A000000001"}]}}"#;
        assert_eq!(firmware(answer), Some("01.09.01.00"));
    }

    #[test]
    fn other_reports_have_no_version() {
        for report in [
            &b""[..],
            b"x",
            b"{}",
            b"[]",
            br#"{"print":{"command":"push_status"}}"#,
            br#"{"info":{"module":"ota"}}"#,
            br#"{"info":{"module":[{"name":"ota"}]}}"#,
            br#"{"info":{"module":[{"name":"ota","sw_ver":1}"#,
        ] {
            assert_eq!(firmware(report), None);
        }
    }
}
