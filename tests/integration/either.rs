//! Tests that are written for either source, run over the outbox: the same SQL, the same frames.

use crate::bench::app::over_the_outbox;

macro_rules! over_the_outbox {
    ($($module:ident $(in $parent:ident)? { $($test:ident)+ })+) => {$(
        mod $module {
            use crate$(::$parent)?::$module as written;

            $(#[test]
            fn $test() {
                super::over_the_outbox(written::$test);
            })+
        }
    )+};
}

over_the_outbox! {
    golden {
        every_event_type_has_its_exact_envelope
        a_system_alert_reaches_every_organization_in_one_frame
    }
    rows {
        a_changed_primary_key_is_an_update_of_the_same_row
        a_mirrored_row_follows_its_changed_key
        a_related_row_of_another_organization_is_not_told
        truncate_is_told_to_streams_of_the_tables_channels
        an_event_above_the_limit_goes_out_without_its_data
        emit_refuses_what_is_not_an_event_and_strangers
        a_transaction_larger_than_memory_allows_is_spooled_and_whole
    }
    isolation {
        a_stream_sees_its_own_organization_alone_live_and_replayed
        only_the_named_roles_and_the_named_user_see_what_is_for_them
        a_row_that_moves_between_organizations_is_deleted_in_one_and_inserted_in_the_other
        an_id_of_another_organization_is_not_trusted
    }
    order {
        what_is_rolled_back_never_happened
        concurrent_writers_lose_and_double_nothing
    }
    restart {
        after_kill_9_the_same_ids_name_the_same_events_and_nothing_is_lost
        a_graceful_restart_keeps_ids_and_an_idle_systems_positions_valid
        sigterm_closes_streams_with_a_retry_and_exits_0
    }
    faults {
        streams_outlive_a_restart_of_the_database_fast_and_immediate
        while_the_database_is_away_readiness_says_so_and_streams_stay
        a_cut_network_is_mended_without_a_gap
        a_second_worker_waits_and_takes_over
    }
    live {
        updates_come_once_an_interval_and_the_last_change_is_in_one
        every_update_holds_the_change_that_it_follows
        a_revoked_member_is_shown_nothing_of_that_transaction_or_after
        while_the_database_is_away_a_stream_stays_and_afterwards_shows_what_changed
    }
    transactions {
        what_a_savepoint_took_back_never_happened
        a_prepared_transaction_comes_when_it_is_committed_and_never_when_it_is_not
        truncating_many_tables_is_told_once_for_each_that_makes_events
        a_hundred_thousand_rows_with_related_ones_come_whole_and_in_order
        lookups_show_the_mirror_as_of_each_change_of_their_own_transaction
    }
    columns {
        a_column_of_every_type_says_what_to_json_says_whatever_the_database_is_set_to
        types_that_were_made_while_it_runs_are_known
    }
    tables {
        a_child_by_inheritance_is_a_table_of_its_own
        a_large_value_of_a_mirrored_row_that_is_not_touched_is_still_there
    }
    streams {
        an_id_that_left_a_full_window_is_history_expired_until_the_client_has_the_syncs_own
        an_id_inside_the_window_that_names_no_transaction_is_history_reset
        since_starts_at_a_duration_at_an_id_and_at_the_earliest
        since_longer_ago_than_the_window_reaches_is_history_expired_and_then_what_is_kept
    }
    canary {
        streams_readiness_and_metric_tell_a_network_that_swallows_everything_and_that_it_is_back
        a_pipeline_that_is_behind_and_moves_is_slow_and_not_stopped
    }
    revocation {
        a_revoked_member_gets_nothing_of_the_transaction_that_revokes
        truncated_memberships_leave_only_who_is_a_member_at_the_commit
        who_was_revoked_while_the_worker_was_down_is_refused_and_the_others_resume
    }
    drift {
        columns_come_change_and_go_in_the_order_of_the_stream
        a_mirrored_column_that_comes_back_is_read_again
    }
    connection in failures {
        a_changed_password_is_told_and_the_right_one_heals_it
    }
    schema in failures {
        columns_come_go_and_change_and_the_stream_goes_on
        a_truncated_or_detached_partition_is_told
    }
    failover in failures {
        a_promoted_standby_is_another_epoch
    }
    server in failures {
        a_copy_of_an_older_state_with_the_same_identifier_is_another_history
    }
    memory {
        a_row_takes_no_more_than_a_row_may_and_its_event_is_oversize
        an_organization_that_nobody_listens_to_costs_next_to_nothing
        a_transaction_beyond_the_window_stays_within_its_bounds
        a_client_that_never_reads_costs_no_more_than_the_window
    }
    emit_http {
        channel_tags_and_only_are_kept_and_a_catalogued_type_inherits_its_own
        a_key_stands_for_one_event_however_often_and_at_once_it_is_asked_for
    }
}
