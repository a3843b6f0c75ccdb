//! Counts what is open, and tells when nothing is.

use std::sync::Arc;

use tokio::sync::watch;

#[derive(Clone, Debug)]
pub(super) struct Live(Arc<watch::Sender<usize>>);

/// One that is open, until dropped.
#[derive(Debug)]
pub(super) struct Guard(Live);

impl Live {
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }

    pub(super) fn enter(&self) -> Guard {
        self.0.send_modify(|open| *open += 1);
        Guard(self.clone())
    }

    /// Waits until nothing is open.
    pub(super) async fn ended(&self) {
        // The sender lives in self, so there is always an answer.
        let _ = self.0.subscribe().wait_for(|open| *open == 0).await;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.0.send_modify(|open| *open = open.saturating_sub(1));
    }
}
