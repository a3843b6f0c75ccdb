#[path = "integration/wire.rs"]
mod wire;
