//! Tests that are written for either source, run over the outbox: the same SQL, the same frames.

use crate::bench::app::over_the_outbox;

macro_rules! over_the_outbox {
    ($($module:ident { $($test:ident)+ })+) => {$(
        mod $module {
            $(#[test]
            fn $test() {
                super::over_the_outbox(crate::$module::$test);
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
}
