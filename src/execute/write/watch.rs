//! Who waits for a server doesn't look whether the run was cancelled: somebody else does.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(20);

/// Does work that may wait, and interrupts it once the run is cancelled.
pub(super) fn watching<T>(
    cancel: Option<&AtomicBool>,
    interrupt: &(dyn Fn() + Sync),
    work: impl FnOnce() -> T,
) -> T {
    let Some(cancel) = cancel else { return work() };
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Acquire) {
                // Whoever had not begun to wait yet is interrupted the next time.
                if cancel.load(Ordering::Relaxed) {
                    interrupt();
                }
                std::thread::sleep(LOOK);
            }
        });
        let done = work();
        is_done.store(true, Ordering::Release);
        done
    })
}
