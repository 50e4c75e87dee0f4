//! What tests share.

/// Seconds of processor time that this thread has had, which other work on the machine doesn't
/// lengthen.
pub(crate) fn processor_seconds() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}
