//! Work that others must not have to wait for.

/// How much the work gives way: a tenth of the time of a core that others want too. Not the last rank, in
/// which it might never end on a machine that is always busy.
#[cfg(target_os = "linux")]
const RANK: i32 = 10;

/// Has the calling thread give way to others when they want its core. For good: it must be a thread of its
/// own, since a process without privileges cannot take this back.
pub fn give_way() {
    // To Linux it is the thread that has the priority, whatever the call is named after. Where it is refused,
    // the work merely competes.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(None, RANK);
}
