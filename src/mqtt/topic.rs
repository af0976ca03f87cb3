//! Topic names and topic filters (MQTT 3.1.1 §4.7), and the two topics of a printer.
//!
//! A topic is cut into levels by `/`, and any level may be empty. In a filter the level `+` stands
//! for any one level, and a last level `#` for any number of levels, none included. Everything here
//! looks at each character a fixed number of times, for any filter.

/// Whether messages on `topic` are among those that `filter` asks for (§4.7).
///
/// A topic that begins with `$` is the server's own: a wildcard at the front of a filter does not
/// stand for it (§4.7.2). A filter that is not [valid](is_valid_filter) matches no topic.
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut wanted = filter.split('/');
    let mut levels = topic.split('/');
    while let Some(level) = wanted.next() {
        if level == "#" {
            return wanted.next().is_none();
        }
        match levels.next() {
            Some(actual) if level == "+" || level == actual => {}
            Some(_) | None => return false,
        }
    }
    levels.next().is_none()
}

/// Whether `filter` is one that a client may subscribe to: neither empty nor above 65535 bytes, no
/// U+0000, and wildcards only as levels of their own, `#` only as the last (§4.7.1, §4.7.3).
pub fn is_valid_filter(filter: &str) -> bool {
    if filter.is_empty() || filter.len() > usize::from(u16::MAX) || filter.contains('\0') {
        return false;
    }
    let mut levels = filter.split('/');
    while let Some(level) = levels.next() {
        match level {
            "#" => return levels.next().is_none(),
            "+" => {}
            _ if level.contains(['+', '#']) => return false,
            _ => {}
        }
    }
    true
}

/// Which of a printer's two topics ([`protocol`](crate::protocol#mqtt)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaf {
    /// The topic that the printer publishes to.
    Report,
    /// The topic that clients publish requests to.
    Request,
}

/// The serial number in `device/<serial>/report` or `device/<serial>/request`, and which of the two
/// it is; `None` for every other topic.
pub fn device_of(topic: &str) -> Option<(&str, Leaf)> {
    let (serial, leaf) = topic.strip_prefix("device/")?.split_once('/')?;
    let leaf = match leaf {
        "report" => Leaf::Report,
        "request" => Leaf::Request,
        _ => return None,
    };
    let named = !serial.is_empty() && !serial.contains(['+', '#']);
    named.then_some((serial, leaf))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    /// Filter, topic, whether they match: the examples of §4.7 first.
    const TABLE: [(&str, &str, bool); 37] = [
        ("sport/tennis/player1/#", "sport/tennis/player1", true),
        ("sport/tennis/player1/#", "sport/tennis/player1/ranking", true),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
        ("sport/#", "sport", true),
        ("sport/#", "sports", false),
        ("#", "sport/tennis", true),
        ("#", "/", true),
        ("sport/tennis/+", "sport/tennis/player1", true),
        ("sport/tennis/+", "sport/tennis/player1/ranking", false),
        ("sport/+", "sport", false),
        ("sport/+", "sport/", true),
        ("+", "sport", true),
        ("+", "/finance", false),
        ("+/+", "/finance", true),
        ("/+", "/finance", true),
        ("+/tennis/#", "sport/tennis", true),
        ("+/tennis/#", "tennis", false),
        ("#", "$SYS/uptime", false),
        ("+/monitor/Clients", "$SYS/monitor/Clients", false),
        ("+/#", "$SYS/monitor/Clients", false),
        ("$SYS/#", "$SYS/monitor/Clients", true),
        ("$SYS/#", "$SYS", true),
        ("$SYS/monitor/+", "$SYS/monitor/Clients", true),
        ("a/+/c", "a/$b/c", true),
        ("ACCOUNTS", "Accounts", false),
        ("/finance", "finance", false),
        ("finance/", "finance", false),
        ("a//b", "a/b", false),
        ("a/+/b", "a//b", true),
        ("a/b", "a/b", true),
        ("a/b", "a/b/", false),
        ("device/+/report", "device/01S00/report", true),
        ("device/01S00/#", "device/01S00/request", true),
        // Filters that no client may have.
        ("a/#/c", "a/b/c", false),
        ("a#", "ab", false),
        ("a+", "ab", false),
        ("", "a", false),
    ];

    #[test]
    fn filters_match_what_the_standard_says() {
        for (filter, topic, expected) in TABLE {
            assert_eq!(matches(filter, topic), expected, "{filter} and {topic}");
        }
    }

    #[test]
    fn wildcards_stand_only_where_the_standard_lets_them() {
        for filter in ["#", "+", "/", "a", "a/#", "+/+/#", "/#", "a/+/c", "$SYS/#", "a//", "ä/+"] {
            assert!(is_valid_filter(filter), "{filter}");
        }
        for filter in ["", "a#", "#/", "a/#/b", "a+", "+a/b", "a/b+", "##", "++", "a/\0", "+#"] {
            assert!(!is_valid_filter(filter), "{filter}");
        }
        assert!(is_valid_filter(&"a".repeat(65535)));
        assert!(!is_valid_filter(&"a".repeat(65536)));
    }

    #[test]
    fn a_device_topic_is_recognised_exactly_and_nothing_like_it_is() {
        assert_eq!(device_of("device/01S00C/report"), Some(("01S00C", Leaf::Report)));
        assert_eq!(device_of("device/01S00C/request"), Some(("01S00C", Leaf::Request)));
        for topic in [
            "",
            "device",
            "device/",
            "device//report",
            "device/01S00C",
            "device/01S00C/",
            "device/01S00C/reports",
            "device/01S00C/Report",
            "device/01S00C/report/",
            "device/01S00C/x/report",
            "device/+/report",
            "device/#/report",
            "/device/01S00C/report",
            "Device/01S00C/report",
            "devices/01S00C/report",
        ] {
            assert_eq!(device_of(topic), None, "{topic}");
        }
    }

    #[test]
    fn a_filter_of_thirty_thousand_wildcards_costs_one_walk() {
        let filter = String::from("+/").repeat(30_000) + "#";
        let topic = "a/".repeat(29_999) + "a";
        assert!(matches(&filter, &topic));
        assert!(!matches(&filter, &topic[..topic.len() - 2]));
    }

    /// §4.7 as one would say it, level by level.
    fn naive(filter: &[&str], topic: &[&str]) -> bool {
        match (filter, topic) {
            (["#"], _) | ([], []) => true,
            (["+", filter @ ..], [_, topic @ ..]) => naive(filter, topic),
            ([wanted, filter @ ..], [level, topic @ ..]) => {
                wanted == level && *wanted != "#" && naive(filter, topic)
            }
            _ => false,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None, ..ProptestConfig::with_cases(256)
        })]

        #[test]
        fn matching_agrees_with_the_naive_reading(
            filter in "(\\$|a|b|\\+|#|\\+a|a#|)(/(a|b|\\+|#|\\$|)){0,4}",
            topic in "(\\$|a|b|\\$a|)(/(a|b|\\$|)){0,4}",
        ) {
            let wanted: Vec<&str> = filter.split('/').collect();
            let levels: Vec<&str> = topic.split('/').collect();
            let hidden = topic.starts_with('$') && ["+", "#"].contains(&wanted[0]);
            let expected = !hidden && naive(&wanted, &levels);
            prop_assert_eq!(matches(&filter, &topic), expected);
            if !topic.is_empty() && !is_valid_filter(&filter) {
                prop_assert!(!matches(&filter, &topic));
            }
        }

        #[test]
        fn any_two_strings_are_compared_without_a_panic(filter: String, topic: String) {
            matches(&filter, &topic);
            is_valid_filter(&filter);
            device_of(&topic);
        }
    }
}
