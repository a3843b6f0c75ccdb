//! Tickets: what an `EventSource`, which can't send a header, opens a stream with instead of a token in its URL.
//!
//! A ticket is short-lived, good for one stream, and grants what its issuer's credential granted and nothing beyond:
//! the same user, rights and end, or less where it is bound to one organization. It is signed with a key that this
//! process draws at start and tells nobody: another node or a restarted worker refuses every ticket, so none of them
//! can be led to accept one that was used here. What was used is remembered until it would have run out. A session that
//! it stands for is in it, encrypted: the stream ends with the session, whichever way it was opened.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::authenticator::TokenError;
use super::jws::decode;
use super::principal::Principal;
use super::sessions::Session;

/// How long a ticket waits for its stream: an `EventSource` opens at once, a page in the background within seconds.
const LASTS: Duration = Duration::from_secs(30);

/// Bytes of a ticket: it has to fit into a URL, and that into a request's head.
const MAX_TICKET: usize = 8 << 10;

/// Used tickets that are remembered: those of half a minute, at some thousand streams a second.
const MAX_USED: usize = 100_000;

/// What a user may mint at once, and within what time that fills up again.
const BURST: u32 = 60;
const REFILL: Duration = Duration::from_secs(30);

/// Users whose minting is counted at a time.
const MAX_MINTING: usize = 100_000;

/// Signs tickets, and lets each in once.
pub struct Tickets {
    key: hmac::Key,
    /// For what is nobody's to read in a ticket.
    seal: RandomizedNonceKey,
    /// Times in tickets count from here: a clock that is set moves none of them.
    born: Instant,
    used: Mutex<Used>,
    /// By user: when what they minted will be forgotten.
    minting: Mutex<HashMap<Arc<str>, Instant>>,
}

/// A ticket as it is handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    pub text: String,
    /// Whole seconds within which it has to be used.
    pub expires_in: u64,
}

/// A ticket that is good and still to be used.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    number: u128,
    /// Milliseconds of [`Tickets::born`].
    until: u64,
}

/// Why there is no ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    #[error("the user has asked for too many tickets")]
    TooMany,
    #[error("what the user may see does not fit into a ticket")]
    TooLarge,
    #[error("there is no randomness")]
    Random,
}

#[derive(Default)]
struct Used {
    numbers: HashSet<u128>,
    /// In the order of use.
    until: VecDeque<(u64, u128)>,
}

/// What is signed.
#[derive(Serialize, Deserialize)]
struct Content {
    number: u128,
    until: u64,
    subject: Arc<str>,
    expires_at: u64,
    scopes: Vec<Box<str>>,
    default_organization: Option<Arc<str>>,
    organizations: BTreeMap<Arc<str>, Option<Arc<str>>>,
    bound_to: Option<Arc<str>>,
    /// Sealed.
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
}

impl Tickets {
    pub(super) fn new() -> Result<Self, aws_lc_rs::error::Unspecified> {
        let mut secret = [0; 32];
        rand::fill(&mut secret)?;
        Ok(Self {
            seal: RandomizedNonceKey::new(&AES_256_GCM, &secret)?,
            key: hmac::Key::generate(hmac::HMAC_SHA256, &rand::SystemRandom::new())?,
            born: Instant::now(),
            used: Mutex::default(),
            minting: Mutex::default(),
        })
    }

    /// A ticket that stands for `principal`, in this organization alone if one is named.
    ///
    /// # Errors
    /// When the user asks too often, or has more to say than a URL carries.
    pub fn mint(&self, principal: &Principal, organization: Option<&str>) -> Result<Ticket, MintError> {
        self.mint_at(principal, organization, Instant::now(), SystemTime::now())
    }

    fn mint_at(
        &self,
        principal: &Principal,
        organization: Option<&str>,
        now: Instant,
        clock: SystemTime,
    ) -> Result<Ticket, MintError> {
        self.count(&principal.subject, now)?;
        let mut random = [0; 16];
        rand::fill(&mut random).map_err(|_| MintError::Random)?;
        let lasts = LASTS.min(principal.remaining(clock));
        let bound_to: Option<Arc<str>> = organization.map(Arc::from).or_else(|| principal.bound_to.clone());
        let mut organizations = principal.organizations.clone();
        if let Some(bound) = &bound_to {
            organizations.retain(|id, _| id == bound);
        }
        let session = principal.session.as_ref().map(|session| self.seal(session)).transpose()?;
        let content = Content {
            number: u128::from_ne_bytes(random),
            until: self.age(now).saturating_add(millis(lasts)),
            subject: Arc::clone(&principal.subject),
            expires_at: principal.expires_at,
            scopes: principal.scopes.clone(),
            default_organization: bound_to.clone().or_else(|| principal.default_organization.clone()),
            organizations,
            bound_to,
            session,
        };
        // Strings and numbers: nothing of it can't be written.
        let content = serde_json::to_vec(&content).map_err(|_| MintError::TooLarge)?;
        let signature = hmac::sign(&self.key, &content);
        let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(&content), URL_SAFE_NO_PAD.encode(signature));
        if text.len() > MAX_TICKET {
            return Err(MintError::TooLarge);
        }
        Ok(Ticket { text, expires_in: lasts.as_secs() })
    }

    /// Whom a ticket stands for. It stays unused until it is [redeemed](Self::redeem).
    pub(super) fn read(&self, text: &str) -> Result<(Principal, Claim), TokenError> {
        self.read_at(text, Instant::now(), SystemTime::now())
    }

    fn read_at(&self, text: &str, now: Instant, clock: SystemTime) -> Result<(Principal, Claim), TokenError> {
        if text.len() > MAX_TICKET {
            return Err(TokenError::Malformed);
        }
        let (content, signature) = text.split_once('.').ok_or(TokenError::Malformed)?;
        let (content, signature) = (decode(content)?, decode(signature)?);
        hmac::verify(&self.key, &content, &signature).map_err(|_| TokenError::Signature)?;
        let content: Content = serde_json::from_slice(&content).map_err(|_| TokenError::Malformed)?;
        let claim = Claim { number: content.number, until: content.until };
        let principal = Principal {
            subject: content.subject,
            expires_at: content.expires_at,
            scopes: content.scopes,
            default_organization: content.default_organization,
            organizations: content.organizations,
            bound_to: content.bound_to,
            session: content.session.map(|sealed| self.unseal(&sealed)).transpose()?,
        };
        if claim.until <= self.age(now) || principal.remaining(clock).is_zero() {
            return Err(TokenError::Expired);
        }
        if self.used().numbers.contains(&claim.number) {
            return Err(TokenError::Used);
        }
        Ok((principal, claim))
    }

    /// Uses the ticket up: of those who come with the same one, one gets through.
    ///
    /// # Errors
    /// When it was used meanwhile, or so many were that this one could not be remembered.
    pub fn redeem(&self, claim: Claim) -> Result<(), TokenError> {
        self.redeem_at(claim, Instant::now())
    }

    fn redeem_at(&self, claim: Claim, now: Instant) -> Result<(), TokenError> {
        let age = self.age(now);
        if claim.until <= age {
            return Err(TokenError::Expired);
        }
        let mut used = self.used();
        while let Some((_, number)) = used.until.pop_front_if(|(until, _)| *until <= age) {
            used.numbers.remove(&number);
        }
        if used.until.len() >= MAX_USED {
            return Err(TokenError::Unavailable("tickets"));
        }
        if !used.numbers.insert(claim.number) {
            return Err(TokenError::Used);
        }
        used.until.push_back((claim.until, claim.number));
        Ok(())
    }

    /// Counts one more ticket of the user: a bucket that holds [`BURST`] and fills up within [`REFILL`].
    fn count(&self, user: &Arc<str>, now: Instant) -> Result<(), MintError> {
        let mut minting = self.minting.lock().unwrap_or_else(PoisonError::into_inner);
        if minting.len() >= MAX_MINTING && !minting.contains_key(user) {
            minting.retain(|_, forgotten| *forgotten > now);
            if minting.len() >= MAX_MINTING {
                return Err(MintError::TooMany);
            }
        }
        let forgotten = minting.get(user).map_or(now, |at| (*at).max(now)) + REFILL / BURST;
        if forgotten > now + REFILL {
            return Err(MintError::TooMany);
        }
        minting.insert(Arc::clone(user), forgotten);
        Ok(())
    }

    fn seal(&self, session: &Session) -> Result<String, MintError> {
        let mut text = session.expose().as_bytes().to_vec();
        let nonce = self.seal.seal_in_place_append_tag(Aad::empty(), &mut text);
        let nonce = nonce.map_err(|_| MintError::Random)?;
        Ok(URL_SAFE_NO_PAD.encode([nonce.as_ref().as_slice(), &text].concat()))
    }

    fn unseal(&self, sealed: &str) -> Result<Session, TokenError> {
        let mut sealed = decode(sealed)?;
        let (nonce, text) = sealed.split_at_mut_checked(NONCE_LEN).ok_or(TokenError::Malformed)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| TokenError::Malformed)?;
        let text = self.seal.open_in_place(nonce, Aad::empty(), text).map_err(|_| TokenError::Signature)?;
        std::str::from_utf8(text).map(Session::new).map_err(|_| TokenError::Malformed)
    }

    fn age(&self, now: Instant) -> u64 {
        millis(now.saturating_duration_since(self.born))
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
