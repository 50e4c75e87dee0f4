//! The threads that the engine works with: a pool of this module's own.
//!
//! rayon's global pool doesn't survive a fork, and a forked data loader would wait for ever for its
//! threads. This pool is made anew in a process that isn't the one it was made in.

use std::process;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};

static POOL: Mutex<Option<(u32, Arc<ThreadPool>)>> = Mutex::new(None);

/// Runs something with the threads of this process. Where no threads can be had, with rayon's own.
pub(crate) fn with_threads<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    match pool() {
        Some(pool) => pool.install(work),
        None => work(),
    }
}

fn pool() -> Option<Arc<ThreadPool>> {
    let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((owner, pool)) = &*pool
        && *owner == process::id()
    {
        return Some(Arc::clone(pool));
    }
    let made =
        Arc::new(ThreadPoolBuilder::new().thread_name(|at| format!("regraft-{at}")).build().ok()?);
    if let Some((_, stale)) = pool.replace((process::id(), Arc::clone(&made))) {
        // Its threads are not in this process: dropping it would wait for them.
        std::mem::forget(stale);
    }
    Some(made)
}
