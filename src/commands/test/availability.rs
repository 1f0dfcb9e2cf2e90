//! Decides when the target has failed so often that the remaining examples are not sent.

/// The number of consecutive unanswered requests after which no more requests are sent.
const UNANSWERED_MAX: u32 = 3;

/// Whether the target is answering.
#[derive(Debug, Default)]
pub(super) struct Availability {
    unanswered: u32,
}

impl Availability {
    /// Returns the reason why no more requests are sent, or `None` if requests are still sent.
    pub(super) fn reason(&self) -> Option<String> {
        (self.unanswered >= UNANSWERED_MAX)
            .then(|| format!("{UNANSWERED_MAX} requests in a row had no answer"))
    }

    /// Records an answer, even an incomplete one.
    pub(super) fn answered(&mut self) {
        self.unanswered = 0;
    }

    /// Records an unanswered request.
    pub(super) fn not_answered(&mut self) {
        self.unanswered += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_requests_in_a_row_without_an_answer_end_the_run() {
        let mut availability = Availability::default();
        for _ in 0..2 {
            availability.not_answered();
            availability.not_answered();
            assert_eq!(availability.reason(), None);
            availability.answered();
        }
        for _ in 0..3 {
            assert_eq!(availability.reason(), None);
            availability.not_answered();
        }
        assert_eq!(availability.reason().unwrap(), "3 requests in a row had no answer");
    }
}
