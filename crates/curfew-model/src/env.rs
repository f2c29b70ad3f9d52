//! The interface between a node's tasks and the machine that runs them.
//!
//! `tests/simulation` runs several nodes in one process on virtual time. The simulation must know
//! which node's code runs, because each node has its own clocks. It must also be able to pause a
//! node. Clocks and randomness need no interface here, because the simulation replaces the
//! functions of the C library. Sockets are passed in through [`Transport::Memory`] and `Dial`.
//!
//! Without the feature `simulation`, as in a release, this module does nothing.
//!
//! [`Transport::Memory`]: https://docs.rs/curfew-ws

#[cfg(feature = "simulation")]
pub use simulated::{Env, enter, is_simulated};

/// Wraps a future as a task of the node whose code runs now. Call it for each future that is
/// spawned.
#[cfg(not(feature = "simulation"))]
pub fn task<F>(future: F) -> F {
    future
}

/// True in a simulation, where code must not start threads of its own.
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

    /// The simulated machines of all nodes, on one thread.
    pub trait Env {
        /// The node whose code runs now.
        fn node(&self) -> Option<usize>;

        /// Called before a task of `node` runs. `Ready(true)` lets the task run, and `Ready(false)`
        /// ends it. While the node is paused, the result is pending; the task is woken when the
        /// node resumes.
        fn begin(&self, node: usize, cx: &mut Context<'_>) -> Poll<bool>;

        /// Called after a task of a node has run. `before` is the node whose code ran before this
        /// task.
        fn end(&self, before: Option<usize>);
    }

    thread_local! {
        static ENV: RefCell<Option<Rc<dyn Env>>> = const { RefCell::new(None) };
    }

    /// Makes `env` the simulated machine of the current thread.
    pub fn enter(env: Rc<dyn Env>) {
        ENV.set(Some(env));
    }

    /// True in a simulation, where code must not start threads of its own.
    pub fn is_simulated() -> bool {
        env().is_some()
    }

    /// The simulated machine of this thread.
    fn env() -> Option<Rc<dyn Env>> {
        ENV.with_borrow(Clone::clone)
    }

    /// Wraps a future as a task of the node whose code runs now. Call it for each future that is
    /// spawned.
    pub fn task<F: Future<Output = ()>>(future: F) -> impl Future<Output = ()> {
        Task {
            node: env().and_then(|env| env.node()),
            future: Box::pin(future),
        }
    }

    /// A future that belongs to a node.
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
                // The node has stopped, so its tasks end.
                return Poll::Ready(());
            }
            let polled = self.future.as_mut().poll(cx);
            env.end(before);
            polled
        }
    }
}
