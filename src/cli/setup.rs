//! (being written)
#[derive(Debug, clap::Args)]
pub(super) struct Args {}
pub struct SetupOptions;
pub fn setup() {}
pub(super) async fn execute(_s: &super::settings::Settings, _a: Args) -> anyhow::Result<()> {
    Ok(())
}
