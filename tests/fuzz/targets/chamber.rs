//! The chamber camera: heads, logins, and both sessions.

use core::time::Duration;
use std::rc::Rc;

use pandaproxy::auth::AccessCode;
use pandaproxy::chamber::client::{LOGIN_TIMEOUT, Viewer};
use pandaproxy::chamber::upstream::{Purpose, Upstream};
use pandaproxy::chamber::wire::{HEAD, Head, LOGIN, Login, MAX_PICTURE, damage, head};
use pandaproxy::chamber::{Service, ViewerLink};
use pandaproxy::clock::Instant;
use pandaproxy::memory::budget;
use pandaproxy::printer::status::{Port6000, Status};
use pandaproxy::service::Service as _;

use super::conversation::{Conversation, Script, both_ways};

/// A login, a head, or a picture.
pub(crate) fn wire(data: &[u8]) {
    if let Some(bytes) = data.first_chunk::<LOGIN>()
        && let Ok(login) = Login::parse(bytes)
    {
        assert_eq!(Login::parse(&login.bytes()), Ok(login));
    }
    if let Some(bytes) = data.first_chunk::<HEAD>()
        && let Head::Picture(len) = Head::parse(bytes)
    {
        assert!(len <= MAX_PICTURE);
        assert_eq!(Head::parse(&head(u32::try_from(len).unwrap())), Head::Picture(len));
    }
    if damage(data).is_none() {
        assert!(data.starts_with(&[0xff, 0xd8]) && data.len() >= 4);
    }
}

/// The smallest valid picture.
const PICTURE: &[u8] = b"\xff\xd8\xff\xe0 a picture \xff\xd9";

fn service() -> Rc<Service> {
    let status = Rc::new(Status::new("", Port6000::Auto));
    Service::new(AccessCode::new(b"12345678").unwrap(), status)
}

type Camera = Conversation<Upstream, Rc<Service>>;
type Viewers = Conversation<Viewer, ViewerLink<fn()>>;

fn viewer_of(service: &Rc<Service>) -> Viewers {
    let ends = service.viewer(Instant::START + LOGIN_TIMEOUT, nothing as fn()).unwrap();
    Conversation::new(ends, budget::CHAMBER_INBOX, budget::CHAMBER_OUTBOX)
}

const fn nothing() {}

fn camera_of(service: &Rc<Service>, now: Instant) -> Camera {
    let ends = (service.upstream(Purpose::Watch, now), Rc::clone(service));
    Conversation::new(ends, budget::CAMERA_INBOX, budget::CAMERA_OUTBOX).begun(now)
}

/// A viewer's bytes. First flag: there is no camera.
pub(crate) fn client(data: &[u8]) {
    let script = Script::of(data);
    both_ways(|cut| {
        let service = service();
        let mut viewer = viewer_of(&service);
        let mut camera: Option<Camera> = None;
        let mut shown = Instant::START;
        script.play(&mut viewer, cut, &mut |now| {
            service.handle_timeout(now);
            if script.flag(0) || !service.demand().is_wanted() {
                return camera.take().is_some_and(|_| {
                    service.lost();
                    true
                });
            }
            let camera = camera.get_or_insert_with(|| camera_of(&service, now));
            camera.reach(now);
            let mut moved = camera.step();
            let logged_in = camera.take_said();
            assert!(logged_in.is_empty() || logged_in.len() == LOGIN);
            if now.since(shown) >= Duration::from_secs(1) {
                shown = now;
                camera.hear(&head(u32::try_from(PICTURE.len()).unwrap()), &mut |_| false);
                camera.hear(PICTURE, &mut |_| false);
                moved = true;
            }
            moved
        });
        let said = viewer.take_said();
        let frame = [&head(u32::try_from(PICTURE.len()).unwrap())[..], PICTURE].concat();
        assert!(said.chunks(frame.len()).all(|shown| shown == frame), "a torn picture");
        let end = viewer.end;
        drop(viewer);
        assert_eq!(service.connections(), 0);
        (said, end)
    });
}

/// The camera's bytes. First flag: no viewer is connected, and the camera is only probed.
pub(crate) fn upstream(data: &[u8]) {
    let script = Script::of(data);
    both_ways(|cut| {
        let service = service();
        let mut viewer = viewer_of(&service);
        let login = Login { user: b"bblp", code: b"12345678" }.bytes();
        let purpose = if script.flag(0) { Purpose::Probe } else { Purpose::Watch };
        if !script.flag(0) {
            viewer.hear(&login, &mut |_| false);
        }
        let ends = (service.upstream(purpose, Instant::START), Rc::clone(&service));
        let mut camera = Conversation::new(ends, budget::CAMERA_INBOX, budget::CAMERA_OUTBOX);
        script.play(&mut camera, cut, &mut |now| {
            service.handle_timeout(now);
            viewer.reach(now);
            viewer.step()
        });
        let said = viewer.take_said();
        let mut rest = &said[..];
        while let Some((bytes, behind)) = rest.split_first_chunk::<HEAD>() {
            let Head::Picture(len) = Head::parse(bytes) else { panic!("no head of ours") };
            let (picture, behind) = behind.split_at(len);
            assert!(
                script.said().windows(len.max(1)).any(|window| window == picture),
                "a picture that the camera did not show"
            );
            rest = behind;
        }
        assert!(rest.is_empty(), "half a picture");
        (camera.take_said(), camera.end, service.counts().damaged, service.counts().shown)
    });
}
