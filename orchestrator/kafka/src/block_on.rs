//! Waiting for one future on a plain thread.
//!
//! The futures of rdkafka's admin client are completed by a thread of its own and need no reactor, so parking the
//! caller is enough; they always end, because every request has a timeout.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            // A wake-up between poll and park leaves a token: park returns at once.
            Poll::Pending => thread::park(),
        }
    }
}
