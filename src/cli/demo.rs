//! (being written)
#[derive(Debug, clap::Args)]
pub(super) struct Args {}
pub(super) async fn execute(
    _s: super::settings::Settings,
    _a: Args,
    _w: super::Worker,
) -> anyhow::Result<()> {
    Ok(())
}
