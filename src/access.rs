//! Who somebody is and what they may see.
//!
//! ```text
//! headers, query ─► Credential ─► Authenticator ─► Principal ─► Memberships ─► Membership (role) | nothing
//! ```
//!
//! Exactly one credential decides: a present but bad one is an error and never a reason to try the next. Nothing here
//! knows a status code; errors are typed, so that `http` can answer with a stable code and no detail. No credential's
//! text is printed or logged, and none is kept but that of a session that is to be asked about again.

pub mod authenticator;
mod authjs;
mod claims;
mod cookies;
pub mod credential;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod jwks;
mod jws;
mod keys;
pub mod memberships;
pub mod origin;
mod principal;
mod sessions;
mod signer;
mod tickets;

pub use authenticator::{Authenticator, TokenError};
pub use credential::{Credential, CredentialError};
pub use keys::KeyError;
pub use memberships::{Membership, Memberships};
pub use origin::{Origins, OriginsError};
pub use principal::Principal;
pub use sessions::{Review, Session};
pub use signer::{NewToken, SignError};
pub use tickets::{Claim, MintError, Ticket, Tickets};
