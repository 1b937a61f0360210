//! Users and tokens of whole members, asked as the services do.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use api::etcdserverpb::{
    AuthEnableRequest, AuthUserAddRequest, AuthUserChangePasswordRequest, AuthUserGrantRoleRequest,
    LeaseGrantRequest,
};
use apply::Rejection;
use auth::{Caller, Error};
use server::{Config, Credentials, Member};
use support::{Place, Running, at_last, find, put};

fn config(config: Config) -> Config {
    Config { bcrypt_cost: 4, ..config }
}

async fn user(member: &Member, name: &str, password: &str) {
    let hashed_password = member.hash_password(password.to_owned()).await.unwrap();
    let add = AuthUserAddRequest { name: name.to_owned(), hashed_password, ..Default::default() };
    member.propose(add).await.unwrap().unwrap();
}

/// Makes `root`, `ann`, who may nothing, and switches authentication on.
async fn set_up(member: Arc<Member>) {
    user(&member, "root", "rootpw").await;
    user(&member, "ann", "annpw").await;
    let grant = AuthUserGrantRoleRequest { user: "root".to_owned(), role: "root".to_owned() };
    member.propose(grant).await.unwrap().unwrap();
    member.propose(AuthEnableRequest {}).await.unwrap().unwrap();
}

async fn token(member: &Arc<Member>, name: &str, password: &str) -> Result<Credentials, Rejection> {
    let authenticated = member.authenticate(name, password).await.unwrap()?;
    Ok(Credentials { token: Some(authenticated.token), common_name: None })
}

#[test]
fn a_password_becomes_a_token_and_a_token_a_caller() {
    let directory = tempfile::tempdir().unwrap();
    let (place, listener) = Place::new(directory.path(), "a");
    let settings = || config(place.config(std::slice::from_ref(&place)));
    let running = Running::start(&place, listener, settings()).unwrap();
    running.run(async |member: Arc<Member>| {
        assert_eq!(token(&member, "ann", "annpw").await, Err(Error::NotEnabled.into()));
        set_up(Arc::clone(&member)).await;
        let shown = token(&member, "ann", "annpw").await.unwrap();
        let revision = member.auth().revision();
        assert_eq!(member.caller(&shown), Ok(Caller { user: "ann".into(), revision }));
        // Whoever does not exist is told what a wrong password is told, and so is who has none.
        for (name, password) in [("ann", "rootpw"), ("nobody", "annpw"), ("", ""), ("ann", "")] {
            assert_eq!(token(&member, name, password).await, Err(Error::AuthFailed.into()), "{name}");
        }
        let wrong = Credentials { token: Some("aaaaaaaaaaaaaaaa.5".into()), common_name: None };
        assert_eq!(member.caller(&wrong), Err(Error::InvalidToken));
        assert_eq!(member.caller(&Credentials::default()), Ok(Caller::default()));
        // Nobody asks for certificates here, so nobody is known by one.
        let named = Credentials { token: None, common_name: Some("root".into()) };
        assert_eq!(member.caller(&named), Ok(Caller::default()));
        let refused = member.propose_as(&Caller::default(), put("k", "v")).await.unwrap();
        assert_eq!(refused.unwrap_err(), Error::UserEmpty.into());
        let caller = member.caller(&shown).unwrap();
        let refused = member.propose_as(&caller, put("k", "v")).await.unwrap();
        assert_eq!(refused.unwrap_err(), Error::PermissionDenied.into());
        let root = member.caller(&token(&member, "root", "rootpw").await.unwrap()).unwrap();
        assert!(member.propose_as(&root, put("k", "v")).await.unwrap().is_ok());
        // A new password ends the tokens for the old one, and the old one.
        let hashed_password = member.hash_password("newpw".into()).await.unwrap();
        let change =
            AuthUserChangePasswordRequest { name: "ann".into(), hashed_password, ..Default::default() };
        member.propose_as(&root, change).await.unwrap().unwrap();
        assert_eq!(member.caller(&shown), Err(Error::InvalidToken));
        assert_eq!(token(&member, "ann", "annpw").await, Err(Error::AuthFailed.into()));
        assert!(token(&member, "ann", "newpw").await.is_ok());
        let refused = member.propose_as(&root, put("k", "v")).await.unwrap();
        assert_eq!(refused.unwrap_err(), Error::OldRevision.into(), "of before the change");
    });
    let place = running.stop();

    // A name in a certificate counts where such are asked for.
    let settings = Config { client_cert_auth: true, ..settings() };
    let running = Running::start(&place, place.listen(), settings).unwrap();
    running.run(async |member: Arc<Member>| {
        member.linearize().await.unwrap();
        assert!(member.auth().is_enabled());
        let named = Credentials { token: None, common_name: Some("root".into()) };
        let root = member.caller(&named).unwrap();
        assert!(member.propose_as(&root, put("k", "v")).await.unwrap().is_ok());
        assert!(token(&member, "ann", "newpw").await.is_ok());
    });
    running.stop();
}

/// What a leader does by itself it does as root: leases end, whoever may write their keys.
#[test]
fn leases_end_while_authentication_is_on() {
    let directory = tempfile::tempdir().unwrap();
    let (place, listener) = Place::new(directory.path(), "a");
    let running =
        Running::start(&place, listener, config(place.config(std::slice::from_ref(&place)))).unwrap();
    running.run(async |member: Arc<Member>| {
        member.propose(LeaseGrantRequest { id: 7, ttl: 1 }).await.unwrap().unwrap();
        let leased = api::etcdserverpb::PutRequest { lease: 7, ..put("k", "v") };
        member.propose(leased).await.unwrap().unwrap();
        set_up(Arc::clone(&member)).await;
        at_last("the end of the lease", async || find(&member, "k").is_none().then_some(())).await;
    });
    running.stop();
}

/// A token is shown to another member than the one that handed it out, which may be behind.
#[test]
fn a_token_is_good_at_every_member() {
    let directory = tempfile::tempdir().unwrap();
    let (places, listeners): (Vec<_>, Vec<_>) =
        ["a", "b", "c"].map(|name| Place::new(directory.path(), name)).into_iter().unzip();
    let members: Vec<Running> = places
        .iter()
        .zip(listeners)
        .map(|(place, listener)| Running::start(place, listener, config(place.config(&places))).unwrap())
        .collect();
    members[0].run(async |member: Arc<Member>| {
        while member.linearize().await.is_err() {}
        set_up(member).await;
    });
    for (at, running) in members.iter().enumerate() {
        let shown = running.run(async |member: Arc<Member>| {
            member.linearize().await.unwrap();
            token(&member, "ann", "annpw").await.unwrap()
        });
        let other = &members[(at + 1) % members.len()];
        let caller = other.run(async move |member: Arc<Member>| {
            member.await_token(&shown).await;
            // One of the future is not waited for.
            let token = shown.token.as_ref().unwrap().split_once('.').unwrap().0.to_owned();
            let made_up = Credentials { token: Some(format!("{token}.{}", u64::MAX - 1)), common_name: None };
            member.await_token(&made_up).await;
            assert_eq!(member.caller(&made_up), Err(Error::InvalidToken));
            member.caller(&shown)
        });
        assert_eq!(caller.unwrap().user, "ann", "of member {at}");
    }
    for running in members {
        running.stop();
    }
}
