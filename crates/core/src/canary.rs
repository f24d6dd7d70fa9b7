//! Planted bugs: one-line changes that somebody could really make. They prove that the simulation sees
//! such changes, and that it still does when an oracle is changed.
//!
//! They exist only under the compiler flag `--cfg canary` (never a cargo feature), and then do nothing
//! before one of them is planted. Otherwise [`is_planted`] is a constant and no bug is there.

/// Declares the bugs once, for the type and for the list of them.
macro_rules! canaries {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A bug that can be planted.
        #[allow(unreachable_pub, reason = "the module is public only with the bugs in it")]
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Canary {
            $($(#[$doc])* $name,)*
        }

        /// All of them.
        #[cfg(canary)]
        pub const ALL: &[Canary] = &[$(Canary::$name,)*];
    };
}

canaries! {
    /// A client is not bound to the connection it uses.
    BindingForgotten,
    /// All requests of a connection expire with the oldest.
    DeadlineReused,
    /// A client that is owed something counts as idle.
    DebtsAreIdle,
    /// The late response of an expired request goes to the next request.
    DiscardedReplyGivenOn,
    /// What a client that is not being read had sent before its end is not served.
    EofDropsRequests,
    /// An id of what is gone reaches its successor.
    GenerationIgnored,
    /// Half a response stays when the error takes its place.
    HalfReplyKept,
    /// Who waits for memory is not woken.
    MemoryWaitersForgotten,
    /// The parts of a split request's response are merged the wrong way round.
    MergeOrderReversed,
    /// A response is awaited for a noreply request.
    NoreplyOwed,
    /// A client that wakes is let in by the password of who had its record before.
    PasswordInherited,
    /// A response goes to the second request of the pipeline.
    PipelineOffByOne,
    /// A refused AUTH or SELECT counts as accepted.
    RefusalIgnored,
    /// Early responses stay when those before them have left.
    ReleaseForgotten,
    /// A client that has sent a part of a request rests.
    RestsTooSoon,
    /// The shell is not told to read a client again.
    ResumeReadLost,
    /// A server connection is given up without looking at what has come meanwhile.
    SilenceMisjudged,
    /// The split requests of a client that is gone stay.
    SplitsLeaked,
    /// A client that has not authenticated is served.
    StrangerAdmitted,
    /// Bytes that answer nothing go to a request that was not sent.
    StrayGivenOn,
    /// A client that had too much to come is not parsed again.
    WakeupLost,
    /// A request that expired before it was sent is sent.
    WithdrawnBytesLeave,
}

#[cfg(canary)]
static PLANTED: core::sync::atomic::AtomicUsize = core::sync::atomic::AtomicUsize::new(usize::MAX);

/// Plants one bug instead of the one before.
#[cfg(canary)]
pub fn plant(canary: Canary) {
    let place = ALL.iter().position(|&other| other == canary);
    PLANTED.store(
        place.unwrap_or(usize::MAX),
        core::sync::atomic::Ordering::Relaxed,
    );
}

/// Whether a bug is there.
#[cfg(canary)]
pub(crate) fn is_planted(canary: Canary) -> bool {
    ALL.get(PLANTED.load(core::sync::atomic::Ordering::Relaxed)) == Some(&canary)
}

/// Whether a bug is there.
#[cfg(not(canary))]
#[inline(always)]
pub(crate) const fn is_planted(_: Canary) -> bool {
    false
}
