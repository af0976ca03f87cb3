//! The description of the stream (SDP, RFC 8866), from the camera and for players.
//!
//! The media of the camera's description are kept, but for their control URLs and addresses, which point to the
//! proxy. The session part, with the printer's address and times, is replaced by a fixed one, so that two
//! descriptions of the same stream are the same text.
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | the description for players | [`MAX_SDP`] bytes | [`Fault::TooLong`] |
//! | tracks | [`TRACKS`] | further ones are left out |
//! | a control URL | [`MAX_URL`] bytes | [`Fault::TooLong`] |

use core::fmt::{self, Write};

/// Bytes in the description for players. A camera's one track takes about 400.
pub const MAX_SDP: usize = 2048;

/// Tracks of a stream: a camera has one, or two with sound.
pub const TRACKS: usize = 2;

/// Bytes in the longest URL of the camera's.
pub const MAX_URL: usize = 160;

/// A URL of the camera's.
pub type Url = heapless::String<MAX_URL>;

/// A track's codec, which decides where players may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// H.264 (RFC 6184).
    H264,
    /// H.265 (RFC 7798).
    H265,
    /// Another codec: players may begin anywhere.
    Other,
}

/// A track of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Track {
    /// The camera's URL for SETUP, relative or whole.
    pub control: Url,
    /// The codec.
    pub codec: Codec,
    /// Ticks of its timestamps in a second; never 0.
    pub rate: u32,
}

/// A description of the stream, as players get it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    text: heapless::String<MAX_SDP>,
    tracks: heapless::Vec<Track, TRACKS>,
    main: usize,
}

/// Why a description cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The description is not UTF-8.
    NotText,
    /// The description has no media.
    NoMedia,
    /// The description, or a URL in it, is too long.
    TooLong,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotText => "it is not text",
            Self::NoMedia => "it has no media",
            Self::TooLong => "it is too long",
        })
    }
}

impl core::error::Error for Fault {}

impl From<fmt::Error> for Fault {
    fn from(_full: fmt::Error) -> Self {
        Self::TooLong
    }
}

impl Description {
    /// Parses the camera's description.
    ///
    /// # Errors
    ///
    /// The description cannot be used.
    pub fn parse(body: &[u8]) -> Result<Self, Fault> {
        let body = core::str::from_utf8(body).map_err(|_| Fault::NotText)?;
        let mut read = Self::default();
        read.text.write_str("v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=PandaProxy\r\nt=0 0\r\n")?;
        read.text.write_str("a=control:*\r\na=range:npt=now-\r\n")?;
        // Lines of media that are left out are skipped.
        let mut is_kept = false;
        let mut has_video = false;
        for line in body.lines() {
            // The last line may end in CR alone. No other control character may get into the description for
            // players, or into a URL of a request.
            let line = line.trim_end_matches('\r');
            let is_odd = line.contains(|c: char| c.is_control() && c != '\t');
            if let Some(media) = line.strip_prefix("m=") {
                is_kept = !is_odd && !read.tracks.is_full();
                if is_kept {
                    read.begin(media)?;
                    if media.starts_with("video") && !has_video {
                        has_video = true;
                        read.main = read.tracks.len() - 1;
                    }
                }
            } else if is_kept && !is_odd {
                read.take(line)?;
            }
        }
        if read.tracks.is_empty() { Err(Fault::NoMedia) } else { Ok(read) }
    }

    /// Begins a track with the rest of an `m=` line.
    fn begin(&mut self, media: &str) -> Result<(), Fault> {
        let mut words = media.splitn(3, ' ');
        let kind = words.next().unwrap_or_default();
        let _port = words.next();
        let rest = words.next().unwrap_or_default();
        // Cannot fail: with all tracks in use the line is not kept.
        let _fits =
            self.tracks.push(Track { control: Url::new(), codec: Codec::Other, rate: 90_000 });
        let number = self.tracks.len();
        write!(self.text, "m={kind} 0 {rest}\r\nc=IN IP4 0.0.0.0\r\na=control:track{number}\r\n")?;
        Ok(())
    }

    /// Adds a line to the track that was begun last.
    fn take(&mut self, line: &str) -> Result<(), Fault> {
        let Some(track) = self.tracks.last_mut() else { return Ok(()) };
        if let Some(control) = line.strip_prefix("a=control:") {
            track.control = control.trim().try_into().map_err(|_| Fault::TooLong)?;
            return Ok(());
        }
        if let Some(map) = line.strip_prefix("a=rtpmap:") {
            let mut parts = map.split([' ', '/']).skip(1);
            track.codec = match parts.next() {
                Some(name) if name.eq_ignore_ascii_case("H264") => Codec::H264,
                Some(name) if name.eq_ignore_ascii_case("H265") => Codec::H265,
                Some(_) | None => Codec::Other,
            };
            let rate = parts.next().and_then(|rate| rate.trim().parse().ok());
            track.rate = rate.filter(|rate| *rate > 0).unwrap_or(90_000);
        }
        if line.starts_with("a=") || line.starts_with("b=") {
            write!(self.text, "{line}\r\n")?;
        }
        Ok(())
    }

    /// The description for players. The same text means the same stream.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The tracks, in order.
    pub fn tracks(&self) -> &[Track] {
        &self.tracks
    }

    /// The index of the track that decides where players may begin: the first video, or else the first.
    pub const fn main(&self) -> usize {
        self.main
    }

    /// The index of the track that a player's URL names by its last part. A URL that names none means the only
    /// track, if there is just one.
    pub fn track_of(&self, url: &str) -> Option<usize> {
        let path = url.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
        let last = path.rsplit('/').next().unwrap_or_default();
        match last.strip_prefix("track").and_then(|number| number.parse::<usize>().ok()) {
            Some(number) => number.checked_sub(1).filter(|at| *at < self.tracks.len()),
            None => (self.tracks.len() == 1).then_some(0),
        }
    }
}

/// Writes the URL for a track's SETUP: its `control`, relative to `base` unless it is a whole URL (RFC 2326
/// §C.1.1).
///
/// # Errors
///
/// `out` has no room for it.
pub fn write_control(out: &mut impl Write, base: &str, control: &str) -> fmt::Result {
    if control.is_empty() || control == "*" {
        return out.write_str(base);
    }
    if control.contains("://") {
        return out.write_str(control);
    }
    let slash = if base.ends_with('/') { "" } else { "/" };
    write!(out, "{base}{slash}{control}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::String;
    use proptest::prelude::*;

    /// As live555 writes it.
    const LIVE555: &str = "v=0\r\no=- 1732600000000000 1 IN IP4 192.168.0.3\r\n\
        s=Session streamed by \"live555\"\r\ni=streaming/live/1\r\nt=0 0\r\na=tool:LIVE555\r\n\
        a=type:broadcast\r\na=control:*\r\na=range:npt=0-\r\nm=video 0 RTP/AVP 96\r\n\
        c=IN IP4 0.0.0.0\r\nb=AS:1000\r\na=rtpmap:96 H264/90000\r\n\
        a=fmtp:96 packetization-mode=1;profile-level-id=4D0028;sprop-parameter-sets=Z00=,aO4=\r\n\
        a=control:track1\r\n";

    #[test]
    fn a_description_keeps_its_media_and_loses_the_address() {
        let read = Description::parse(LIVE555.as_bytes()).unwrap();
        assert!(!read.text().contains("192.168") && !read.text().contains("1732600"), "{read:?}");
        assert!(read.text().contains("\r\nm=video 0 RTP/AVP 96\r\n"));
        assert!(read.text().contains("\r\nb=AS:1000\r\n"));
        assert!(read.text().contains("sprop-parameter-sets=Z00=,aO4=\r\n"));
        assert_eq!(read.text().matches("a=control:track1\r\n").count(), 1);
        let control = "track1".try_into().unwrap();
        assert_eq!(read.tracks(), [Track { control, codec: Codec::H264, rate: 90_000 }]);
    }

    #[test]
    fn the_same_stream_has_the_same_text() {
        let later =
            LIVE555.replace("1732600000000000 1 IN IP4 192.168.0.3", "18 1 IN IP4 10.0.0.9");
        let (one, other) = (Description::parse(LIVE555.as_bytes()), later.as_bytes());
        assert_eq!(one.unwrap().text(), Description::parse(other).unwrap().text());
        let wider = LIVE555.replace("Z00=", "Z01=");
        let one = Description::parse(LIVE555.as_bytes()).unwrap();
        assert_ne!(one.text(), Description::parse(wider.as_bytes()).unwrap().text());
    }

    #[test]
    fn lines_with_control_characters_are_left_out() {
        let read = Description::parse(LIVE555.trim_end_matches('\n').as_bytes()).unwrap();
        assert_eq!(read.tracks()[0].control, "track1");
        let odd =
            LIVE555.replace("control:track1", "control:track1\rX: y").replace("b=AS", "b=\u{8}AS");
        let read = Description::parse(odd.as_bytes()).unwrap();
        assert_eq!(read.tracks()[0].control, "");
        assert!(!read.text().contains("AS:1000") && !read.text().contains("X: y"), "{read:?}");
        let odd = LIVE555.replace("m=video", "m=vid\0eo");
        assert_eq!(Description::parse(odd.as_bytes()), Err(Fault::NoMedia));
    }

    #[test]
    fn the_first_video_is_main_and_further_tracks_are_left_out() {
        let sound = "v=0\r\nm=audio 0 RTP/AVP 97\r\na=rtpmap:97 MPEG4-GENERIC/48000/2\r\n";
        let more = "m=video 0 RTP/AVP 98\na=rtpmap:98 H265/90000\nm=video 0 RTP/AVP 99\na=x:no\n";
        let read = Description::parse(format!("{sound}{more}").as_bytes()).unwrap();
        assert_eq!((read.tracks().len(), read.main()), (TRACKS, 1));
        assert_eq!(read.tracks()[0].rate, 48_000);
        assert_eq!(read.tracks()[1].codec, Codec::H265);
        assert!(!read.text().contains("a=x:no") && !read.text().contains("RTP/AVP 99"));
        assert_eq!(Description::parse(sound.as_bytes()).unwrap().main(), 0);
    }

    #[test]
    fn an_unusable_description_has_its_fault() {
        assert_eq!(Description::parse(b"v=0\r\ns=x\r\n"), Err(Fault::NoMedia));
        assert_eq!(Description::parse(b""), Err(Fault::NoMedia));
        assert_eq!(Description::parse(b"m=video \xff"), Err(Fault::NotText));
        let long = format!("m=video 0 RTP/AVP 96\na=x:{}\n", "x".repeat(MAX_SDP));
        assert_eq!(Description::parse(long.as_bytes()), Err(Fault::TooLong));
        let far = format!("m=video 0 RTP/AVP 96\na=control:{}\n", "x".repeat(MAX_URL + 1));
        assert_eq!(Description::parse(far.as_bytes()), Err(Fault::TooLong));
    }

    #[test]
    fn a_track_is_found_by_the_end_of_its_url() {
        let one = Description::parse(LIVE555.as_bytes()).unwrap();
        let both = format!("{LIVE555}m=audio 0 RTP/AVP 0\r\n");
        let two = Description::parse(both.as_bytes()).unwrap();
        let table = [
            ("rtsps://h:322/streaming/live/1/track1", Some(0), Some(0)),
            ("rtsps://h:322/streaming/live/1/track2", None, Some(1)),
            ("rtsps://h/track1/?x=/2", Some(0), Some(0)),
            ("rtsps://h:322/streaming/live/1", Some(0), None),
            ("rtsps://h/track0", None, None),
            ("rtsps://h/track99999999999999999999", Some(0), None),
            ("", Some(0), None),
        ];
        for (url, of_one, of_two) in table {
            assert_eq!((one.track_of(url), two.track_of(url)), (of_one, of_two), "{url}");
        }
    }

    #[test]
    fn control_urls_are_relative_unless_whole() {
        let table = [
            ("rtsps://p/live/1/", "track1", "rtsps://p/live/1/track1"),
            ("rtsps://p/live/1", "track1", "rtsps://p/live/1/track1"),
            ("rtsps://p/live/1", "rtsp://q/2", "rtsp://q/2"),
            ("rtsps://p/live/1", "*", "rtsps://p/live/1"),
            ("rtsps://p/live/1", "", "rtsps://p/live/1"),
        ];
        for (base, control, url) in table {
            let mut out = String::new();
            write_control(&mut out, base, control).unwrap();
            assert_eq!(out, url);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn any_description_is_parsed_within_its_bounds(
            lines in proptest::collection::vec(
                "(m=video |m=audio |m=|a=control:|a=rtpmap:96 H264/|a=|c=|)\\PC{0,40}", 0..12),
            end in proptest::sample::select(alloc::vec!["\r\n", "\n", "\r"]),
            url in "\\PC{0,40}",
        ) {
            if let Ok(read) = Description::parse(lines.join(end).as_bytes()) {
                prop_assert!((1..=TRACKS).contains(&read.tracks().len()));
                prop_assert!(read.main() < read.tracks().len());
                prop_assert_eq!(read.text().matches("\r\nm=").count(), read.tracks().len());
                prop_assert!(read.tracks().iter().all(|track| track.rate > 0));
                prop_assert!(read.track_of(&url).is_none_or(|track| track < read.tracks().len()));
                // The description for players is parsed to the same.
                let again = Description::parse(read.text().as_bytes()).unwrap();
                prop_assert_eq!(again.tracks().len(), read.tracks().len());
            }
        }

        #[test]
        fn any_bytes_are_parsed_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _any = Description::parse(&bytes);
        }
    }
}
