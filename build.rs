//! Migrations are compiled in: a new file must rebuild the binary.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
