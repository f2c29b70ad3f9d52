use bytes::Bytes;
use curfew_telemetry::Registry;
use tokio::sync::oneshot;

use super::*;

const LEASE: Duration = Duration::from_secs(3);

type PublishAnswer = oneshot::Receiver<Result<Option<Position>, Fault>>;

/// A fence at a Redis whose clock is `ahead` microseconds ahead of [`boottime`].
fn fence(cluster: bool, ahead: i64) -> Fence {
    let lease = Arc::new(DeliveryLease::not_held());
    lease.renew(boottime() + LEASE, lease.stretch());
    Fence {
        lease,
        metrics: RedisMetrics::register(&Registry::default()),
        cluster,
        digests: Digests::default(),
        server_id: Mutex::default(),
        ahead: AtomicI64::new(ahead),
        bursts: Repeats::default(),
    }
}

/// One publication of `bytes` bytes in each of these channels, under a lease that does not end
/// during the test.
fn publications(channels: &[&str], bytes: usize) -> (Vec<Publication>, Vec<PublishAnswer>) {
    let until = boottime() + LEASE * 2;
    channels
        .iter()
        .map(|channel| {
            Publication::new((*channel).to_owned(), vec![b'x'; bytes].into(), until, None)
        })
        .unzip()
}

/// Groups `count` publications into a run, which must be the only one.
fn run(fence: &Fence, count: usize) -> (Run, Vec<PublishAnswer>) {
    let (publications, answers) = publications(&vec!["a"; count], 1);
    let mut runs = fence.runs(publications);
    assert_eq!(runs.len(), 1);
    (runs.remove(0), answers)
}

fn outcomes(answers: Vec<PublishAnswer>) -> Vec<String> {
    answers
        .into_iter()
        .map(
            |mut answer| match answer.try_recv().expect("every publication has an answer") {
                Ok(_) => "ok".to_owned(),
                Err(fault) => curfew_backend::BackendError::from(fault)
                    .error_type()
                    .to_owned(),
            },
        )
        .collect()
}

fn error(code: &str) -> Value {
    let reply = format!("-{code} it is so\r\n");
    redis::parse_redis_value(reply.as_bytes()).expect("an error is a valid reply")
}

#[test]
fn the_script_refuses_in_the_word_that_is_looked_for() {
    assert!(SCRIPT.contains(&format!("error_reply('{FENCED} ")));
}

#[test]
fn only_differences_of_redis_clock_count() {
    for hours in [-30_000_000, -1, 0, 1, 500_000] {
        let ahead = hours * 3_600_000_000_i64;
        let fence = fence(false, ahead);
        let until = boottime() + LEASE;
        assert_eq!(
            fence.deadline(until) - ahead,
            microseconds(until),
            "{hours}"
        );
    }
    assert_eq!(fence(false, i64::MAX / 2).deadline(Duration::MAX), i64::MAX);
}

#[test]
fn what_is_late_before_it_is_sent_is_not_sent() {
    let fence = fence(false, 0);
    let (late, answer) = Publication::new("a".to_owned(), Bytes::new(), boottime(), None);
    assert!(fence.runs(vec![late]).is_empty());
    assert_eq!(outcomes(vec![answer]), ["unavailable"]);
    let (publications, answers) = publications(&["a"], 1);
    fence.lease.expire();
    assert!(fence.runs(publications).is_empty());
    assert_eq!(outcomes(answers), ["unavailable"]);
}

#[test]
fn the_deadline_is_that_of_the_older_lease() {
    let fence = fence(false, 0);
    let soon = boottime() + LEASE / 2;
    let (older, _answer) = Publication::new("a".to_owned(), Bytes::new(), soon, None);
    let (mut all, _answers) = publications(&["a", "a"], 1);
    all.insert(0, older);
    let runs = fence.runs(all);
    let until: Vec<_> = runs.iter().map(Run::until).collect();
    assert_eq!(until, [soon, fence.lease.held_until().unwrap()]);
}

#[test]
fn runs_are_of_a_channel_in_a_cluster_and_of_a_size_everywhere() {
    let channels = ["a", "b", "a", "a", "b"];
    let sizes = |cluster, bytes| {
        let (publications, _answers) = publications(&channels, bytes);
        let runs = fence(cluster, 0).runs(publications);
        let sizes = runs.iter().map(|run| run.publications.len());
        sizes.collect::<Vec<_>>()
    };
    assert_eq!(sizes(false, 1), [5]);
    assert_eq!(sizes(true, 1), [3, 2]);
    assert_eq!(sizes(false, RUN_BYTES / 2), [2, 2, 1]);
    assert_eq!(sizes(true, RUN_BYTES), [1, 1, 1, 1, 1]);
}

#[test]
fn each_publication_has_the_answer_that_redis_gave() {
    const WITHIN: &str = "NOPERM no right to SET script: f0, on @user_script:7.";
    const NORIGHT: &str = "NORIGHT no right to SET script: f0, on @user_script:7.";
    let fence = fence(false, 0);
    let refused = Value::Array(vec![
        Value::Int(1),
        error("ERR"),
        Value::Int(3),
        error("OOM"),
    ]);
    for (reply, expect) in [
        (Value::Int(1), ["ok"; 4]),
        (refused, ["ok", "unavailable", "ok", "unavailable"]),
        (error("FENCED"), ["unknown_outcome"; 4]),
        (error("READONLY"), ["unavailable"; 4]),
        (error("OOM"), ["unavailable"; 4]),
        (error("MOVED"), ["unavailable"; 4]),
        // The script may have failed halfway.
        (error("ERR"), ["unknown_outcome"; 4]),
        (error(WITHIN), ["unknown_outcome"; 4]),
        // The script gives this answer before it does anything.
        (error(NORIGHT), ["unavailable"; 4]),
        (error("NOPERM"), ["unavailable"; 4]),
        (Value::Okay, ["unknown_outcome"; 4]),
    ] {
        let (mut run, answers) = run(&fence, 4);
        assert_eq!(fence.answer(&mut run, reply.clone()), Ran::Answered);
        assert_eq!(outcomes(answers), expect, "{reply:?}");
    }
    assert_eq!(fence.metrics.broker_messages_fenced.get(), 4);
}

#[test]
fn what_was_not_done_for_want_of_the_script_can_be_sent_again() {
    let fence = fence(false, 0);
    let (mut run, answers) = run(&fence, 2);
    assert_eq!(fence.answer(&mut run, error("NOSCRIPT")), Ran::NoScript);
    let mut again = fence.runs(run.into_publications());
    fence.answer(&mut again[0], Value::Int(1));
    assert_eq!(outcomes(answers), ["ok"; 2]);
}

#[test]
fn whoever_waits_is_told_what_is_known_when_a_connection_goes() {
    let fence = fence(false, 0);
    let (unsent, answers) = publications(&["a"; 2], 1);
    drop(unsent);
    assert_eq!(outcomes(answers), ["unavailable"; 2]);
    let (sent, answers) = run(&fence, 2);
    drop(sent);
    assert_eq!(outcomes(answers), ["unknown_outcome"; 2]);
    let (mut timed_out, answers) = run(&fence, 2);
    timed_out.leave_open(&std::io::Error::from(std::io::ErrorKind::TimedOut).into());
    assert_eq!(outcomes(answers), ["unknown_outcome"; 2]);
}

#[tokio::test]
async fn a_lease_is_over_when_it_ends_and_is_not_renewed() {
    let fence = fence(false, 0);
    let soon = boottime() + Duration::from_millis(20);
    let first = time::timeout(LEASE / 10, fence.lease_over(soon));
    assert!(first.await.is_err(), "the lease is held");
    fence.lease.expire();
    fence.lease_over(soon).await;
}
