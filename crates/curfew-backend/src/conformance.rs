//! Checks that every backend must pass. Each check tests one guarantee of the backend traits.
//!
//! A check fails by panicking. The suite's clock starts at the real time. Some effects in a backend
//! take a while, for example calls of [`Events`](crate::Events), or an expiry by the backend's own
//! clock. A check waits for such an effect at most [`DEADLINE`].

mod broker;
mod cluster;
mod presence;
mod relay;
mod revocations;
mod sessions;
mod streams;
mod tickets;

use std::time::Duration;

pub use cluster::{Cluster, ManualClock, Member, Recorder};

/// Longest time that a condition may take to become true.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Runs every check, each on a new cluster of `nodes` nodes (at least 1). `make` starts an empty
/// cluster on the given clock, with one node for each recorder.
pub async fn run<F, Fut>(nodes: usize, make: F)
where
    F: Fn(std::sync::Arc<ManualClock>, Vec<std::sync::Arc<Recorder>>) -> Fut,
    Fut: Future<Output = Vec<Member>>,
{
    macro_rules! checks {
        ($($module:ident: $($check:ident),+;)+) => {$($(
            // The test harness shows this line if the check panics.
            eprintln!("conformance: {}", stringify!($check));
            Box::pin($module::$check(Cluster::start(nodes, &make).await)).await;
        )+)+};
    }
    checks! {
        broker:
            a_publication_reaches_every_node_that_listens,
            publications_arrive_in_order_and_once,
            a_publication_does_not_outlive_its_lease,
            a_channel_can_be_left_and_joined_again,
            every_node_is_listed;
        streams:
            an_unused_stream_has_one_epoch,
            offsets_have_no_holes_and_arrive_in_order,
            a_stream_is_read_both_ways,
            a_publication_is_read_back_byte_for_byte,
            a_stream_is_trimmed_to_its_size,
            publications_are_over_when_their_time_is_and_the_position_stays,
            a_key_is_answered_with_the_first_position,
            appends_at_once_are_what_they_are_one_by_one,
            a_key_belongs_to_its_publisher_and_channel,
            an_append_does_not_outlive_its_lease,
            a_cleared_stream_keeps_its_position,
            positions_of_many_are_read_in_order;
        presence:
            an_entry_is_listed_everywhere_until_it_leaves,
            counts_are_of_all_sessions_and_users,
            a_late_removal_leaves_a_later_entry,
            nodes_that_listen_are_told_who_comes_and_goes;
        sessions:
            a_record_is_seen_everywhere_until_it_is_closed,
            a_record_is_gone_when_the_token_has_expired,
            concurrent_opens_never_exceed_the_limit,
            the_limit_is_per_user_and_counts_open_sessions,
            without_a_limit_any_number_opens,
            a_refresh_replaces_the_record,
            a_refresh_does_not_bring_a_record_back,
            lists_are_ordered_filtered_and_paged,
            a_disconnect_reaches_the_session_wherever_it_lives;
        revocations:
            a_revocation_is_named_by_every_check_that_follows,
            a_check_names_the_first_key_that_covers,
            a_cutoff_covers_what_was_issued_until_then,
            every_node_hears_of_a_revocation,
            the_receipt_counts_nodes_and_sessions,
            the_receipt_names_nodes_that_do_not_find_the_sessions,
            a_comparison_finds_what_was_revoked_before,
            a_revocation_ends_by_itself,
            a_lifted_revocation_is_gone,
            a_later_revocation_never_covers_less,
            an_ended_revocation_does_not_widen_the_next,
            revocations_are_listed_in_order_of_their_keys,
            the_time_is_one_for_all_nodes;
        tickets:
            a_ticket_is_taken_on_any_node_and_once,
            of_many_who_take_a_ticket_one_has_it,
            a_ticket_is_gone_when_its_lifetime_is_over,
            an_id_is_given_once;
        relay:
            a_message_reaches_the_node_that_is_named_and_no_other,
            messages_that_are_awaited_arrive_in_order_and_once,
            the_answer_is_what_came_of_the_message,
            a_node_that_is_not_there_is_told_apart;
    }
}
