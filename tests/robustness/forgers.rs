//! Tokens that nobody was given.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use api::etcdserverpb::kv_client::KvClient;
use api::etcdserverpb::{AuthenticateRequest, RangeRequest, auth_client::AuthClient};
use etcd_client::ConnectOptions;
use tests::Server;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

use crate::no_panics;

const SECRET: &[u8] = b"known to members alone";

/// Base64 as tokens have it.
fn encode(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let number = three.iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte))
            << (8 * (3 - three.len()));
        for place in 0..=three.len() {
            text.push(char::from(LETTERS[(number >> (18 - 6 * place)) as usize & 63]));
        }
    }
    text
}

/// A token that says that its algorithm is `algorithm`, with a signature by `secret`.
fn token(algorithm: &str, claims: &str, secret: Option<&[u8]>) -> String {
    let head = format!(r#"{{"alg":"{algorithm}","typ":"JWT"}}"#);
    let signed = format!("{}.{}", encode(head.as_bytes()), encode(claims.as_bytes()));
    let signature = secret.map_or_else(String::new, |secret| {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
        encode(ring::hmac::sign(&key, signed.as_bytes()).as_ref())
    });
    format!("{signed}.{signature}")
}

/// What a read of a key with this token comes to.
async fn read(channel: &Channel, token: &str) -> Code {
    let mut request = Request::new(RangeRequest { key: "k".into(), ..Default::default() });
    let Ok(token) = token.parse() else { return Code::InvalidArgument };
    request.metadata_mut().insert("token", token);
    KvClient::new(channel.clone()).range(request).await.map_or_else(|status| status.code(), |_| Code::Ok)
}

/// Makes users, and has authentication switched on.
async fn close(server: &Server) -> Result<()> {
    let mut client = server.client().await?;
    for user in ["root", "ann"] {
        client.role_add(user).await?;
        client.user_add(user, "secret", None).await?;
        client.user_grant_role(user, user).await?;
    }
    client.put("k", "v", None).await?;
    client.auth_enable().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_and_expired_tokens() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let key = directory.path().join("secret");
    std::fs::write(&key, SECRET)?;
    let options = format!("jwt,sign-method=HS256,priv-key={},ttl=10m", key.display());
    for kind in ["simple", options.as_str()] {
        let data = directory.path().join(kind.split(',').next().unwrap_or_default());
        let server =
            Server::start(&data, &["--unsafe-no-fsync", "--auth-token", kind, "--bcrypt-cost", "4"])?;
        close(&server).await?;
        let channel = Endpoint::from_shared(server.endpoint())?.connect().await?;
        let asked = AuthenticateRequest { name: "root".into(), password: "secret".into() };
        let good = AuthClient::new(channel.clone()).authenticate(asked).await?.into_inner().token;
        assert_eq!(read(&channel, &good).await, Code::Ok);

        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let claims = |until: u64| format!(r#"{{"exp":{until},"revision":100,"username":"root"}}"#);
        let (past, future) = (claims(now - 1), claims(now + 600));
        let mut forged = vec![
            String::new(),
            "x".to_owned(),
            "..".to_owned(),
            "a.18446744073709551615".to_owned(),
            format!("{good}0"),
            good[1..].to_owned(),
            "x".repeat(8_000),
            token("HS256", &past, Some(SECRET)),
            token("HS256", &future, Some(b"another secret")),
            token("HS256", &future, None),
            token("none", &future, None),
            token("none", &future, Some(SECRET)),
            token("None", &future, None),
            token("HS512", &future, Some(SECRET)),
            token("RS256", &future, Some(SECRET)),
            token("HS256", r#"{"exp":1e400,"revision":1,"username":"root"}"#, Some(SECRET)),
            token("HS256", "[]", Some(SECRET)),
            token("HS256", "", Some(SECRET)),
            token("HS256", &claims(now + 600).replace("root", "nobody"), Some(SECRET)),
        ];
        // Each letter of a good one changed, one at a time, as far as it means something.
        for at in (0..good.len() - 1).step_by(7) {
            let mut other = good.clone().into_bytes();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            forged.push(String::from_utf8(other)?);
        }
        for token in &forged {
            let code = read(&channel, token).await;
            assert_ne!(code, Code::Ok, "{kind}: {token}");
        }
        // So many that none can be guessed, beside somebody who is let in.
        let login = ConnectOptions::new().with_user("root", "secret");
        let mut client = etcd_client::Client::connect([server.endpoint()], Some(login)).await?;
        for number in 0..500_u64 {
            assert_ne!(read(&channel, &format!("AAAAAAAAAAAAAAAA.{number}")).await, Code::Ok);
        }
        client.put("k", "w", None).await?;
        assert_eq!(read(&channel, &good).await, Code::Ok, "it has outlived all of them");
        no_panics(&server);
    }
    Ok(())
}
