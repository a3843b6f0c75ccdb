//! The integration tests: one binary, one Postgres cluster that it starts by itself (or the server that
//! `TEST_DATABASE_URL` names), a database of its own for every test.

mod bench;
mod faults;
mod golden;
mod isolation;
mod measure;
mod order;
mod requests;
mod restart;
mod rows;
