//! Faults of the log's source: its slot and its publication.

use std::time::Duration;

use tokio::time::sleep;

use super::Victims;
use crate::writer;

/// What the run's slots may keep, in MiB, while one is to be lost.
const KEEP_MIB: u32 = 64;

impl Victims {
    pub(super) async fn slot_dropped(&mut self, pause: Duration) {
        let start = self.head().await;
        self.proxy.cut();
        self.drop_slot().await;
        sleep(pause).await;
        self.proxy.restore();
        self.healed(start).await;
    }

    pub(super) async fn slot_invalidated(&mut self, pause: Duration) {
        let start = self.head().await;
        self.proxy.cut();
        self.invalidate().await;
        sleep(pause).await;
        self.proxy.restore();
        self.healed(start).await;
    }

    pub(super) async fn publication_remade(&mut self, pause: Duration) {
        let start = self.head().await;
        self.sql("drop publication walcast").await;
        sleep(pause).await;
        self.program.set_up(&self.url).await;
        self.healed(start).await;
    }

    async fn drop_slot(&self) {
        let sql = "select pg_terminate_backend(active_pid) from pg_replication_slots
                    where slot_name like 'walcast%' and active;
                   select pg_drop_replication_slot(slot_name) from pg_replication_slots
                    where slot_name like 'walcast%'";
        let session = writer::connect(&self.dsn).await;
        // A walsender takes a moment to end.
        while session.batch_execute(sql).await.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Writes more than the worker's slot may keep, while the judge's own goes along.
    async fn invalidate(&mut self) {
        let terminate = "select pg_terminate_backend(active_pid) from pg_replication_slots where active";
        let status = "select coalesce(max(wal_status), 'none') from pg_replication_slots where slot_name like 'walcast%'";
        let mine = "select (coalesce(pg_current_wal_insert_lsn() - restart_lsn, 0) / 1048576)::int::text
                      from pg_replication_slots where slot_name = 'torture'";
        let flood = format!(
            "select pg_logical_emit_message(false, 'x', repeat('x', 1048576)) from generate_series(1, {})",
            2 * KEEP_MIB
        );
        self.sql(terminate).await;
        self.sql(&flood).await;
        loop {
            // It logs who writes; read beyond that, the judge's slot keeps nothing from before.
            self.sql("checkpoint").await;
            self.order.read(&self.dsn).await;
            if self.text(mine).await.parse::<u32>().expect("a number") < KEEP_MIB / 2 {
                break;
            }
        }
        self.sql(&format!("alter system set max_slot_wal_keep_size = '{KEEP_MIB}MB'")).await;
        self.sql("select pg_reload_conf()").await;
        while self.text("show max_slot_wal_keep_size").await == "-1" {
            sleep(Duration::from_millis(20)).await;
        }
        self.sql("checkpoint").await;
        assert_eq!(self.text(status).await, "lost", "the worker's slot");
        self.sql("alter system reset max_slot_wal_keep_size").await;
        self.sql("select pg_reload_conf()").await;
    }
}
