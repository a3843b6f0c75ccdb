//! (being written)
use crate::postgres::Dsn;
#[derive(Debug, clap::Args)]
pub(super) struct Args {}
#[derive(Default)]
pub struct SetupOptions {
    pub reference: bool,
}
#[allow(clippy::unused_async)]
pub async fn setup(_d: &Dsn, _o: &SetupOptions) -> anyhow::Result<()> {
    Ok(())
}
#[allow(clippy::unused_async)]
pub(super) async fn execute(_s: &super::settings::Settings, _a: Args) -> anyhow::Result<()> {
    Ok(())
}
