//! What a camera says it shows (RFC 8866), and what players are told of it.
//!
//! Of a printer's description the media are kept as they are, but for their control URLs and
//! addresses: players are to come back here. What stands before the media says where and when the
//! printer made its description, which is nobody's affair, so that two descriptions are the same text
//! when the same is shown.
//!
//! | what | bound | past it |
//! |---|---|---|
//! | what players are told | [`MAX_SDP`] bytes | [`Fault::TooLong`] |
//! | tracks | [`TRACKS`] | the rest is not shown |
//! | a control URL | [`MAX_URL`] bytes | [`Fault::TooLong`] |

use core::fmt::{self, Write};

/// Bytes in what players are told. A camera's one track takes about 400.
pub const MAX_SDP: usize = 2048;

/// Tracks that are shown: a camera has one, or two with sound.
pub const TRACKS: usize = 2;

/// Bytes in the longest URL of a printer's.
pub const MAX_URL: usize = 160;

/// A URL of a printer's.
pub type Url = heapless::String<MAX_URL>;

/// How a track is encoded, as far as it matters here: where players may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// H.264 (RFC 6184).
    H264,
    /// H.265 (RFC 7798).
    H265,
    /// Something else: players may begin anywhere.
    Other,
}

/// One of the things that are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Track {
    /// Where it is set up with the printer; relative, or a whole URL.
    pub control: Url,
    /// How it is encoded.
    pub codec: Codec,
    /// Ticks of its time stamps in a second.
    pub rate: u32,
}

/// What a camera shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    text: heapless::String<MAX_SDP>,
    tracks: heapless::Vec<Track, TRACKS>,
    main: usize,
}

/// Why a description is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is no text.
    NotText,
    /// It has no media.
    NoMedia,
    /// It is longer than there is room for.
    TooLong,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotText => "it is no text",
            Self::NoMedia => "there is nothing in it to be shown",
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
    /// Reads a printer's.
    ///
    /// # Errors
    ///
    /// It is of no use.
    pub fn parse(body: &[u8]) -> Result<Self, Fault> {
        let body = core::str::from_utf8(body).map_err(|_| Fault::NotText)?;
        let mut read = Self::default();
        read.text.write_str("v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=PandaProxy\r\nt=0 0\r\n")?;
        read.text.write_str("a=control:*\r\na=range:npt=now-\r\n")?;
        // Of those that are not shown the lines are passed over.
        let mut is_shown = false;
        let mut has_video = false;
        for line in body.lines() {
            // The last one may have lost half of its end. Nothing else that is no text leaves this place: not
            // in what players are told, and not in a URL that the camera is asked for.
            let line = line.trim_end_matches('\r');
            let is_odd = line.contains(|c: char| c.is_control() && c != '\t');
            if let Some(media) = line.strip_prefix("m=") {
                is_shown = !is_odd && !read.tracks.is_full();
                if is_shown {
                    read.begin(media)?;
                    if media.starts_with("video") && !has_video {
                        has_video = true;
                        read.main = read.tracks.len() - 1;
                    }
                }
            } else if is_shown && !is_odd {
                read.take(line)?;
            }
        }
        if read.tracks.is_empty() { Err(Fault::NoMedia) } else { Ok(read) }
    }

    /// A line `m=`, without that.
    fn begin(&mut self, media: &str) -> Result<(), Fault> {
        let mut words = media.splitn(3, ' ');
        let kind = words.next().unwrap_or_default();
        let _port = words.next();
        let rest = words.next().unwrap_or_default();
        // It fits: there is room for one more, or it is not shown.
        let _fits =
            self.tracks.push(Track { control: Url::new(), codec: Codec::Other, rate: 90_000 });
        let number = self.tracks.len();
        write!(self.text, "m={kind} 0 {rest}\r\nc=IN IP4 0.0.0.0\r\na=control:track{number}\r\n")?;
        Ok(())
    }

    /// A line of the track that was begun last.
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

    /// What players are told. The same text is the same show.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What is shown.
    pub fn tracks(&self) -> &[Track] {
        &self.tracks
    }

    /// Which of them decides where players may begin: the first video, or the first there is.
    pub const fn main(&self) -> usize {
        self.main
    }

    /// Which track a URL of a player's means, whose last part is what this description calls it. The
    /// URL of the whole means the only track there is.
    pub fn track_of(&self, url: &str) -> Option<usize> {
        let path = url.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
        let last = path.rsplit('/').next().unwrap_or_default();
        match last.strip_prefix("track").and_then(|number| number.parse::<usize>().ok()) {
            Some(number) => number.checked_sub(1).filter(|at| *at < self.tracks.len()),
            None => (self.tracks.len() == 1).then_some(0),
        }
    }
}

/// Writes where a track is set up: its `control`, if that is a whole URL, or behind `base`.
///
/// # Errors
///
/// There is no room for it.
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

    /// In live555's words.
    const LIVE555: &str = "v=0\r\no=- 1732600000000000 1 IN IP4 192.168.0.3\r\n\
        s=Session streamed by \"live555\"\r\ni=streaming/live/1\r\nt=0 0\r\na=tool:LIVE555\r\n\
        a=type:broadcast\r\na=control:*\r\na=range:npt=0-\r\nm=video 0 RTP/AVP 96\r\n\
        c=IN IP4 0.0.0.0\r\nb=AS:1000\r\na=rtpmap:96 H264/90000\r\n\
        a=fmtp:96 packetization-mode=1;profile-level-id=4D0028;sprop-parameter-sets=Z00=,aO4=\r\n\
        a=control:track1\r\n";

    #[test]
    fn a_printers_description_keeps_its_media_and_loses_its_address() {
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
    fn the_same_show_is_the_same_text_whenever_and_wherever_it_was_described() {
        let later =
            LIVE555.replace("1732600000000000 1 IN IP4 192.168.0.3", "18 1 IN IP4 10.0.0.9");
        let (one, other) = (Description::parse(LIVE555.as_bytes()), later.as_bytes());
        assert_eq!(one.unwrap().text(), Description::parse(other).unwrap().text());
        let wider = LIVE555.replace("Z00=", "Z01=");
        let one = Description::parse(LIVE555.as_bytes()).unwrap();
        assert_ne!(one.text(), Description::parse(wider.as_bytes()).unwrap().text());
    }

    #[test]
    fn lines_that_are_no_text_are_passed_over_and_half_an_end_is_none() {
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
    fn the_first_video_is_the_main_track_and_tracks_past_the_bound_are_not_shown() {
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
    fn what_is_of_no_use_says_why() {
        assert_eq!(Description::parse(b"v=0\r\ns=x\r\n"), Err(Fault::NoMedia));
        assert_eq!(Description::parse(b""), Err(Fault::NoMedia));
        assert_eq!(Description::parse(b"m=video \xff"), Err(Fault::NotText));
        let long = format!("m=video 0 RTP/AVP 96\na=x:{}\n", "x".repeat(MAX_SDP));
        assert_eq!(Description::parse(long.as_bytes()), Err(Fault::TooLong));
        let far = format!("m=video 0 RTP/AVP 96\na=control:{}\n", "x".repeat(MAX_URL + 1));
        assert_eq!(Description::parse(far.as_bytes()), Err(Fault::TooLong));
    }

    #[test]
    fn a_track_is_known_by_the_end_of_its_url() {
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
    fn control_urls_stand_behind_their_base_unless_they_are_whole() {
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
        fn no_description_whatever_does_any_harm_and_players_are_told_no_more_than_fits(
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
                // What players are told is read as the same.
                let again = Description::parse(read.text().as_bytes()).unwrap();
                prop_assert_eq!(again.tracks().len(), read.tracks().len());
            }
        }

        #[test]
        fn no_bytes_whatever_do_any_harm(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _any = Description::parse(&bytes);
        }
    }
}
