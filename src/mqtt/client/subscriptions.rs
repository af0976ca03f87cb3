//! What a client has subscribed to, and under which topic it gets the reports.

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
}

/// Under which topic a client gets the reports.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Delivery {
    /// The client has not subscribed to them.
    #[default]
    No,
    /// The printer's own report topic.
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

    /// The topic of the reports that the client gets, if it does.
    pub(super) fn report_topic<'a>(&'a self, topics: &'a Topics) -> Option<&'a str> {
        match self.reports {
            Delivery::No => None,
            Delivery::Own => Some(topics.report.as_str()),
            Delivery::Alias(at) => Some(self.filters.get(at)?.as_str()),
        }
    }

    fn choose(&mut self, topics: &Topics) {
        let own = |filter: &heapless::String<FILTER>| topic::matches(filter, &topics.report);
        let alias = |filter: &heapless::String<FILTER>| is_report_topic(filter);
        self.reports = if self.filters.iter().any(own) {
            Delivery::Own
        } else {
            self.filters.iter().position(alias).map_or(Delivery::No, Delivery::Alias)
        };
    }
}

/// Whether a filter covers reports: this printer's, or those of a printer whose serial number the client
/// has stored from an earlier configuration ([`protocol`](crate::protocol#mqtt)).
pub(super) fn covers_reports(filter: &str, topics: &Topics) -> bool {
    topic::matches(filter, &topics.report) || is_report_topic(filter)
}

fn is_report_topic(filter: &str) -> bool {
    matches!(topic::device_of(filter), Some((_, Leaf::Report)))
}
