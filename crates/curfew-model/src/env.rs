//! The machine under a node, as far as another can stand in for it: its tasks.
//!
//! `tests/simulation` runs several nodes in one process on virtual time. It has to know whose code
//! runs, since each node has clocks of its own, and to keep a node from running. Clocks and
//! randomness need no seam: it stands in for the C library's. Sockets are handed in, to
//! [`Transport::Memory`] and by `Dial`.
//!
//! Without the feature `simulation`, as in what is shipped, nothing here does anything.
//!
//! [`Transport::Memory`]: https://docs.rs/curfew-ws

#[cfg(feature = "simulation")]
pub use simulated::{Env, enter, is_simulated};

/// A task of the node whose code runs now. To be called for each future that is spawned.
#[cfg(not(feature = "simulation"))]
pub fn task<F>(future: F) -> F {
    future
}

/// True if a thread of its own may not run beside the tasks.
#[cfg(not(feature = "simulation"))]
pub fn is_simulated() -> bool {
    false
}

#[cfg(feature = "simulation")]
pub use simulated::task;

#[cfg(feature = "simulation")]
mod simulated {
    use std::cell::RefCell;
    use std::pin::Pin;
    use std::rc::Rc;
    use std::task::{Context, Poll, ready};

    /// A stand-in for the machines of all nodes, on one thread.
    pub trait Env {
        /// The node whose code runs now.
        fn node(&self) -> Option<usize>;

        /// Called before a task of `node` runs. Ready with `false` ends the task; while the node is
        /// stopped it is pending, and the task is woken when the node goes on.
        fn begin(&self, node: usize, cx: &mut Context<'_>) -> Poll<bool>;

        /// Called after a task of a node has run; `before` is the node whose code ran before.
        fn end(&self, before: Option<usize>);
    }

    thread_local! {
        static ENV: RefCell<Option<Rc<dyn Env>>> = const { RefCell::new(None) };
    }

    /// From here on `env` stands in for the machine on this thread.
    pub fn enter(env: Rc<dyn Env>) {
        ENV.set(Some(env));
    }

    /// True if a thread of its own may not run beside the tasks.
    pub fn is_simulated() -> bool {
        env().is_some()
    }

    fn env() -> Option<Rc<dyn Env>> {
        ENV.with_borrow(Clone::clone)
    }

    /// A task of the node whose code runs now. To be called for each future that is spawned.
    pub fn task<F: Future<Output = ()>>(future: F) -> impl Future<Output = ()> {
        Task {
            node: env().and_then(|env| env.node()),
            future: Box::pin(future),
        }
    }

    struct Task<F> {
        node: Option<usize>,
        future: Pin<Box<F>>,
    }

    impl<F: Future<Output = ()>> Future for Task<F> {
        type Output = ();

        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
            let (Some(node), Some(env)) = (self.node, env()) else {
                return self.future.as_mut().poll(cx);
            };
            let before = env.node();
            if !ready!(env.begin(node, cx)) {
                return Poll::Ready(());
            }
            let polled = self.future.as_mut().poll(cx);
            env.end(before);
            polled
        }
    }
}
