//! Decides when the target has failed so often that the remaining examples are not sent.

/// The number of consecutive requests without an answer after which no more are sent.
const TIMEOUTS_MAX: u32 = 3;

/// Whether the target answers.
#[derive(Debug, Default)]
pub(super) struct Availability {
    timeouts: u32,
    reason: Option<String>,
}

impl Availability {
    /// Returns why no more requests are sent.
    pub(super) fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// Records an answer, even an incomplete one.
    pub(super) fn answered(&mut self) {
        self.timeouts = 0;
    }

    /// Records a request without an answer.
    pub(super) fn timed_out(&mut self) {
        self.timeouts += 1;
        if self.timeouts >= TIMEOUTS_MAX {
            self.reason = Some(format!("{TIMEOUTS_MAX} requests in a row had no answer"));
        }
    }

    /// Records that no request can reach the target.
    pub(super) fn unreachable(&mut self, reason: String) {
        self.reason = Some(reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_timeouts_in_a_row_end_the_run() {
        let mut availability = Availability::default();
        for _ in 0..2 {
            availability.timed_out();
            availability.timed_out();
            assert_eq!(availability.reason(), None);
            availability.answered();
        }
        for _ in 0..3 {
            assert_eq!(availability.reason(), None);
            availability.timed_out();
        }
        assert_eq!(availability.reason(), Some("3 requests in a row had no answer"));
        let mut availability = Availability::default();
        availability.unreachable("refused".to_owned());
        assert_eq!(availability.reason(), Some("refused"));
    }
}
