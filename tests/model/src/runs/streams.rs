//! The searches of streams as specified. The searches with one check removed are in [`removals`].

use super::{Expect, Part, Run, Searched};
use crate::streams::{StreamBounds, StreamEvents, StreamRules, Streams};

mod removals;

/// Every search of streams.
pub(super) fn all() -> Vec<Run> {
    let mut runs = specified();
    runs.extend(removals::all());
    runs.push(redundant());
    runs.extend(deep());
    runs
}

const THREE: StreamEvents = StreamEvents {
    publications: 3,
    cuts: 0,
    losses: 0,
    wipes: 0,
    deletions: 0,
    evictions: 0,
    failovers: 0,
    returns: 0,
    timeouts: 0,
    revocations: 0,
    reloads: 0,
};

/// Bounds with one session, a stream that is trimmed, and no window.
fn one(events: StreamEvents) -> StreamBounds {
    StreamBounds {
        sessions: 1,
        events,
        size: 2,
        window: 0,
        buffer: 2,
    }
}

/// The bounds of [`one`] with a window.
fn windowed(events: StreamEvents) -> StreamBounds {
    // A client must subscribe again to be served from the window.
    let events = StreamEvents {
        returns: 1,
        ..events
    };
    StreamBounds {
        window: 2,
        ..one(events)
    }
}

/// Bounds in which the link can break, and can lose a publication.
fn link() -> StreamBounds {
    let events = StreamEvents {
        cuts: 1,
        losses: 1,
        ..THREE
    };
    one(events)
}

/// Bounds with a buffer of one frame, a trimmed stream, and a read that takes too long.
fn tight() -> StreamBounds {
    let events = StreamEvents {
        losses: 1,
        timeouts: 1,
        ..THREE
    };
    StreamBounds {
        buffer: 1,
        ..one(events)
    }
}

fn returning() -> StreamBounds {
    one(StreamEvents {
        returns: 1,
        ..THREE
    })
}

fn two() -> StreamBounds {
    StreamBounds {
        sessions: 2,
        ..one(StreamEvents {
            publications: 2,
            ..THREE
        })
    }
}

fn flush() -> StreamBounds {
    one(StreamEvents {
        losses: 1,
        wipes: 1,
        ..THREE
    })
}

fn failover() -> StreamBounds {
    one(StreamEvents {
        failovers: 1,
        ..THREE
    })
}

fn window() -> StreamBounds {
    let events = StreamEvents {
        cuts: 1,
        losses: 1,
        ..THREE
    };
    windowed(events)
}

fn small_window() -> StreamBounds {
    StreamBounds {
        window: 1,
        ..window()
    }
}

fn window_of_two() -> StreamBounds {
    StreamBounds {
        sessions: 2,
        ..windowed(StreamEvents {
            publications: 2,
            cuts: 1,
            ..THREE
        })
    }
}

fn window_and_flush() -> StreamBounds {
    windowed(StreamEvents { wipes: 1, ..THREE })
}

fn window_and_failover() -> StreamBounds {
    windowed(StreamEvents {
        failovers: 1,
        ..THREE
    })
}

fn window_without_room() -> StreamBounds {
    windowed(StreamEvents {
        evictions: 1,
        ..THREE
    })
}

fn window_and_deletion() -> StreamBounds {
    windowed(StreamEvents {
        publications: 2,
        deletions: 1,
        ..THREE
    })
}

/// Bounds with a cut, a `FLUSHALL` and a failover.
fn all_at_once() -> StreamBounds {
    windowed(StreamEvents {
        publications: 2,
        cuts: 1,
        wipes: 1,
        failovers: 1,
        ..THREE
    })
}

fn slow_and_flush() -> StreamBounds {
    one(StreamEvents {
        losses: 1,
        wipes: 1,
        timeouts: 1,
        ..THREE
    })
}

fn revocation() -> StreamBounds {
    windowed(StreamEvents {
        publications: 2,
        revocations: 1,
        ..THREE
    })
}

fn reload() -> StreamBounds {
    windowed(StreamEvents {
        publications: 2,
        cuts: 1,
        reloads: 1,
        ..THREE
    })
}

/// Bounds with a revocation, a cut and a `FLUSHALL`.
fn revocation_and_loss() -> StreamBounds {
    windowed(StreamEvents {
        publications: 2,
        cuts: 1,
        wipes: 1,
        revocations: 1,
        ..THREE
    })
}

fn two_and_losses() -> StreamBounds {
    StreamBounds {
        sessions: 2,
        ..windowed(StreamEvents {
            publications: 3,
            losses: 1,
            wipes: 1,
            ..THREE
        })
    }
}

fn two_and_failover() -> StreamBounds {
    StreamBounds {
        sessions: 2,
        ..windowed(StreamEvents {
            publications: 2,
            failovers: 1,
            ..THREE
        })
    }
}

fn revocation_and_failover() -> StreamBounds {
    windowed(StreamEvents {
        publications: 2,
        failovers: 1,
        revocations: 1,
        ..THREE
    })
}

fn two_and_revocation() -> StreamBounds {
    StreamBounds {
        sessions: 2,
        window: 2,
        ..one(StreamEvents {
            publications: 2,
            cuts: 1,
            revocations: 1,
            ..THREE
        })
    }
}

fn slow_and_lossy() -> StreamBounds {
    windowed(StreamEvents {
        publications: 3,
        cuts: 1,
        losses: 1,
        wipes: 1,
        timeouts: 1,
        ..THREE
    })
}

fn run(
    part: Part,
    id: &'static str,
    title: &'static str,
    (rules, bounds): (StreamRules, StreamBounds),
    expect: Expect,
) -> Run {
    Run {
        id,
        title,
        part,
        searched: Searched::Streams(Streams { rules, bounds }),
        expect,
    }
}

/// Searches that take too long for CI.
fn deep() -> Vec<Run> {
    let holds = |id, title, bounds| {
        let searched = (StreamRules::specified(), bounds);
        run(Part::StreamsInDepth, id, title, searched, Expect::Holds)
    };
    vec![
        holds(
            "D1",
            "a window, a cut, FLUSHALL, a revocation",
            revocation_and_loss(),
        ),
        holds(
            "D2",
            "a window, two sessions, a loss, FLUSHALL",
            two_and_losses(),
        ),
        holds(
            "D3",
            "a window, a cut, a loss, FLUSHALL, a read too slow",
            slow_and_lossy(),
        ),
        holds(
            "D4",
            "a window, two sessions, a cut, a revocation",
            two_and_revocation(),
        ),
    ]
}

fn specified() -> Vec<Run> {
    let holds = |id, title, bounds| {
        let searched = (StreamRules::specified(), bounds);
        run(Part::Streams, id, title, searched, Expect::Holds)
    };
    vec![
        holds("T1", "a link that breaks and loses", link()),
        holds("T2", "a small buffer, a loss, a read too slow", tight()),
        holds("T3", "a session that comes back", returning()),
        holds("T4", "two sessions and one read", two()),
        holds("T5", "FLUSHALL, a loss", flush()),
        holds("T6", "failover", failover()),
        holds("T7", "a window, a link that breaks and loses", window()),
        holds("T8", "the same, a window of one entry", small_window()),
        holds("T9", "a window and two sessions, a cut", window_of_two()),
        holds("T10", "a window, FLUSHALL", window_and_flush()),
        holds("T11", "a window, failover", window_and_failover()),
        holds("T12", "a revocation", revocation()),
        holds("T13", "a reload, a cut", reload()),
        holds("T14", "a read too slow, FLUSHALL, a loss", slow_and_flush()),
        holds(
            "T15",
            "a window, all that can happen to data and links",
            all_at_once(),
        ),
        holds("T16", "a window, a deletion", window_and_deletion()),
        holds("T17", "a window that is given up", window_without_room()),
        holds(
            "T18",
            "a window, two sessions, failover",
            two_and_failover(),
        ),
        holds(
            "T19",
            "a window, failover, a revocation",
            revocation_and_failover(),
        ),
    ]
}

/// The search without a redundant check: positions beyond the top are refused. As long as the other
/// checks work, no client has such a position in the stream's epoch.
fn redundant() -> Run {
    let rules = StreamRules {
        compare_top: false,
        ..StreamRules::specified()
    };
    let title = "the client's position is not compared with the top";
    let searched = (rules, failover());
    run(
        Part::StreamsRedundant,
        "SR4b",
        title,
        searched,
        Expect::Holds,
    )
}
