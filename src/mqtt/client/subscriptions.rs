//! What a client has subscribed to, and under which topics it gets reports and the requests of others.

use crate::mqtt::Topics;
use crate::mqtt::topic::{self, Leaf};

/// Topic filters a client may hold. Slicers and dashboards use one or two.
pub const FILTERS: usize = 8;

/// Bytes in a topic filter. `device/<serial>/request` has 30.
pub const FILTER: usize = 96;

/// A client's topic filters.
#[derive(Default)]
pub(super) struct Subscriptions {
    filters: heapless::Vec<heapless::String<FILTER>, FILTERS>,
    reports: Delivery,
    requests: Delivery,
}

/// Under which topic a client gets reports, or requests.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Delivery {
    /// The client has not subscribed to them.
    #[default]
    No,
    /// The printer's own topic.
    Own,
    /// The topic of another printer, whose serial number the client has stored: the filter at this index.
    Alias(usize),
}

impl Subscriptions {
    /// Adds a filter, and returns whether it is held now: not when it is longer than [`FILTER`], nor when
    /// there are [`FILTERS`] already.
    pub(super) fn add(&mut self, filter: &str, topics: &Topics) -> bool {
        let held = self.filters.iter().any(|held| held == filter)
            || heapless::String::try_from(filter)
                .is_ok_and(|filter| self.filters.push(filter).is_ok());
        self.choose(topics);
        held
    }

    /// Removes a filter. One that is not held is ignored.
    pub(super) fn remove(&mut self, filter: &str, topics: &Topics) {
        self.filters.retain(|held| held != filter);
        self.choose(topics);
    }

    /// Whether the client gets the reports.
    pub(super) fn has_reports(&self) -> bool {
        self.reports != Delivery::No
    }

    /// Whether the client gets the requests of others.
    pub(super) fn has_requests(&self) -> bool {
        self.requests != Delivery::No
    }

    /// The topic of the reports that the client gets, if it does.
    pub(super) fn report_topic<'a>(&'a self, topics: &'a Topics) -> Option<&'a str> {
        self.topic(self.reports, &topics.report)
    }

    /// The topic of the requests that the client gets, if it does.
    pub(super) fn request_topic<'a>(&'a self, topics: &'a Topics) -> Option<&'a str> {
        self.topic(self.requests, &topics.request)
    }

    fn topic<'a>(&'a self, delivery: Delivery, own: &'a str) -> Option<&'a str> {
        match delivery {
            Delivery::No => None,
            Delivery::Own => Some(own),
            Delivery::Alias(at) => Some(self.filters.get(at)?.as_str()),
        }
    }

    fn choose(&mut self, topics: &Topics) {
        self.reports = self.delivery(topics, &topics.report, Leaf::Report);
        self.requests = if topics.shows_requests {
            self.delivery(topics, &topics.request, Leaf::Request)
        } else {
            Delivery::No
        };
    }

    fn delivery(&self, topics: &Topics, own: &str, leaf: Leaf) -> Delivery {
        if self.filters.iter().any(|filter| topic::matches(filter, own)) {
            return Delivery::Own;
        }
        let alias = self.filters.iter().position(|filter| topics.leaf_of(filter) == Some(leaf));
        alias.map_or(Delivery::No, Delivery::Alias)
    }
}

/// Whether a filter covers reports: this printer's, or those of a printer whose serial number the client
/// has stored from an earlier configuration ([`protocol`](crate::protocol#mqtt)).
pub(super) fn covers_reports(filter: &str, topics: &Topics) -> bool {
    topic::matches(filter, &topics.report) || topics.leaf_of(filter) == Some(Leaf::Report)
}

/// Whether a filter covers requests, to this printer or another, in the same way.
pub(super) fn covers_requests(filter: &str, topics: &Topics) -> bool {
    topic::matches(filter, &topics.request) || topics.leaf_of(filter) == Some(Leaf::Request)
}
