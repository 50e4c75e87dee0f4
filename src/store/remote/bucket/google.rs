//! Google Cloud Storage: the credentials that `GOOGLE_APPLICATION_CREDENTIALS` names or `gcloud`
//! has left, and the access tokens that they are exchanged for.
//!
//! Source: "Using OAuth 2.0 for Server to Server Applications" of Google.

use std::path::PathBuf;
use std::sync::{LazyLock, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde::Deserialize;
use serde_json::json;

use super::super::http::{self, Request};
use super::amazon::canonical_query;
use super::{first_of, now, variable};
use crate::error::{Error, ErrorKind, Result};
use crate::store::quote::quoted;

/// What a token is asked for.
const SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_only";

/// Where `gcloud` leaves credentials, below the home directory.
const USUAL: &str = ".config/gcloud/application_default_credentials.json";

/// Where objects are, and who asks for them.
pub(super) struct Access {
    endpoint: String,
    credentials: Option<Credentials>,
}

#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Credentials {
    ServiceAccount {
        client_email: String,
        private_key: String,
        private_key_id: Option<String>,
        token_uri: Option<String>,
    },
    AuthorizedUser {
        client_id: String,
        client_secret: String,
        refresh_token: String,
        token_uri: Option<String>,
    },
    #[serde(other)]
    Other,
}

/// The last token, what it was given for, and until when it is good.
static TOKEN: LazyLock<Mutex<Option<(Credentials, String, u64)>>> = LazyLock::new(Mutex::default);

impl Access {
    /// What the environment says.
    ///
    /// # Errors
    /// If it names credentials that can't be read, or are of a kind that isn't known here.
    pub(super) fn of_environment() -> Result<Self> {
        let endpoint = variable("STORAGE_EMULATOR_HOST")
            .map(|host| if host.contains("://") { host } else { format!("http://{host}") });
        let endpoint = endpoint.unwrap_or_else(|| "https://storage.googleapis.com".to_owned());
        let named = std::env::var_os("GOOGLE_APPLICATION_CREDENTIALS").map(PathBuf::from);
        let usual = || Some(std::env::home_dir()?.join(USUAL)).filter(|path| path.is_file());
        let credentials = match named.or_else(usual) {
            Some(path) => Some(Credentials::read(&path)?),
            None => None,
        };
        Ok(Self { endpoint: endpoint.trim_end_matches('/').to_owned(), credentials })
    }

    /// Where it is, for the cache.
    pub(super) fn name(&self) -> String {
        self.endpoint.clone()
    }

    /// A request for an object, or for a bucket where the key is empty.
    ///
    /// # Errors
    /// If no token is given.
    pub(super) fn request(
        &self,
        (bucket, key): (&str, &str),
        query: &[(&str, &str)],
        headers: Vec<(&'static str, String)>,
    ) -> Result<Request> {
        let (query, key) = (canonical_query(query), quoted(key, true));
        let mark = if query.is_empty() { "" } else { "?" };
        let mut request = Request::new(format!("{}/{bucket}/{key}{mark}{query}", self.endpoint));
        request.headers = headers;
        let given = first_of(&["GOOGLE_OAUTH_ACCESS_TOKEN", "CLOUDSDK_AUTH_ACCESS_TOKEN"]);
        let token = match (given, &self.credentials) {
            (Some(token), _) => Some(token),
            (None, Some(credentials)) => Some(credentials.token()?),
            (None, None) => None,
        };
        Ok(match token {
            Some(token) => request.secret("Authorization", format!("Bearer {token}")),
            None => request,
        })
    }
}

impl Credentials {
    fn read(path: &std::path::Path) -> Result<Self> {
        let text = std::fs::read(path)
            .map_err(|error| Error::io("cannot read the credentials", path, error))?;
        let denied = |what| Error::new(ErrorKind::Denied, what).in_file(path);
        let found: Self = serde_json::from_slice(&text).map_err(|_| {
            denied("these are no credentials of Google").hint("GOOGLE_APPLICATION_CREDENTIALS names the JSON of a service account, or what `gcloud auth application-default login` leaves")
        })?;
        if matches!(found, Self::Other) {
            return Err(denied("credentials of this kind aren't known here")
                .hint("export CLOUDSDK_AUTH_ACCESS_TOKEN=$(gcloud auth print-access-token)"));
        }
        Ok(found)
    }

    /// A token, which is good for some time.
    fn token(&self) -> Result<String> {
        let mut last = TOKEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, token, until)) = &*last
            && of == self
            && *until > now() + 60
        {
            return Ok(token.clone());
        }
        let (uri, form) = self.form(now())?;
        #[derive(Deserialize)]
        struct Answer {
            access_token: String,
            #[serde(default)]
            expires_in: u64,
        }
        let failed = || {
            let error =
                Error::new(ErrorKind::Denied, "Google gives no access token for these credentials");
            error
                .hint("are they still good? `gcloud auth application-default login` makes new ones")
        };
        let text = http::post(&uri, &form).map_err(|_| failed())?;
        let answer: Answer = serde_json::from_slice(&text).map_err(|_| failed())?;
        *last = Some((self.clone(), answer.access_token.clone(), now() + answer.expires_in));
        Ok(answer.access_token)
    }

    /// What is posted for a token, and where.
    fn form(&self, now: u64) -> Result<(String, Vec<(&'static str, String)>)> {
        let usual = || "https://oauth2.googleapis.com/token".to_owned();
        match self {
            Self::ServiceAccount { client_email, private_key, private_key_id, token_uri } => {
                let uri = token_uri.clone().unwrap_or_else(usual);
                let head = json!({ "alg": "RS256", "typ": "JWT", "kid": private_key_id });
                let claims = json!({ "iss": client_email, "scope": SCOPE, "aud": uri, "iat": now, "exp": now + 3600 });
                let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
                let text = format!("{}.{}", part(&head), part(&claims));
                let signature = URL_SAFE_NO_PAD.encode(signed(private_key, &text)?);
                let grant = "urn:ietf:params:oauth:grant-type:jwt-bearer".to_owned();
                let form =
                    vec![("grant_type", grant), ("assertion", format!("{text}.{signature}"))];
                Ok((uri, form))
            }
            Self::AuthorizedUser { client_id, client_secret, refresh_token, token_uri } => {
                let form = vec![
                    ("grant_type", "refresh_token".to_owned()),
                    ("client_id", client_id.clone()),
                    ("client_secret", client_secret.clone()),
                    ("refresh_token", refresh_token.clone()),
                ];
                Ok((token_uri.clone().unwrap_or_else(usual), form))
            }
            Self::Other => Err(not_a_key()),
        }
    }
}

fn not_a_key() -> Error {
    Error::new(ErrorKind::Denied, "the private key of the service account can't be read")
}

/// A signature of a text, with a key as PEM has it.
fn signed(key: &str, text: &str) -> Result<Vec<u8>> {
    let body: String = key.lines().filter(|line| !line.starts_with("-----")).collect();
    let bytes = STANDARD.decode(body.trim()).map_err(|_| not_a_key())?;
    let pair = RsaKeyPair::from_pkcs8(&bytes).map_err(|_| not_a_key())?;
    let mut signature = vec![0; pair.public().modulus_len()];
    pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature)
        .map_err(|_| not_a_key())?;
    Ok(signature)
}
