//! Users, roles and what they permit: the replicated part.
//!
//! What holds:
//! - every change is a method that an entry of the log calls; what it answers and leaves behind
//!   follows from the state before and its arguments;
//! - a change that takes effect raises the revision by one, and one that is refused, or changes
//!   nothing, does not (switching authentication on is no change of users or roles);
//! - rows are etcd's: a user's message under its name in `authUsers`, a role's in `authRoles`, and in
//!   `auth` the revision in eight bytes and whether authentication is on in one;
//! - `permitted` is a function of users and roles.

use std::collections::BTreeMap;
use std::fmt;

use api::authpb::permission::Type;
use api::authpb::{Permission, Role, User, UserAddOptions};
use api::etcdserverpb::{
    AuthRoleGrantPermissionRequest, AuthRoleRevokePermissionRequest, AuthUserAddRequest,
    AuthUserChangePasswordRequest,
};
use backend::{Table, TableOp};
use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use prost::Message;

use crate::caller::{Access, Caller};
use crate::error::Error;
use crate::range::{Ranges, is_grantable};
use crate::{ROOT_ROLE, ROOT_USER};

const ENABLED: &[u8] = b"authEnabled";
const REVISION: &[u8] = b"authRevision";

/// The revision of a store that nothing has been written to. (etcd writes it down at its first start,
/// each member by itself.)
const FIRST_REVISION: u64 = 1;

/// Go's standard base64 as its decoder takes it: stray bits at the end do not matter.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// What a user's roles permit together.
#[derive(Clone, Debug, Default)]
struct Permitted {
    read: Ranges,
    write: Ranges,
}

/// Users and roles.
#[derive(Clone, Debug)]
pub struct Store {
    enabled: bool,
    revision: u64,
    users: BTreeMap<String, User>,
    roles: BTreeMap<String, Role>,
    permitted: BTreeMap<String, Permitted>,
    /// Changes of rows that nobody has taken yet.
    ops: Vec<TableOp>,
}

/// Whether a request holds a password where its hash belongs, as those of etcd before 3.5 did. To
/// hash it here would come to another hash on every member.
pub fn unhashed(password: &str, hashed: &str) -> bool {
    !password.is_empty() && hashed.is_empty()
}

/// The stored hash of a password, out of its form in a request.
fn stored_hash(encoded: &str) -> Result<Bytes, Error> {
    // Go passes over line ends.
    let encoded: String = encoded.chars().filter(|letter| !matches!(letter, '\r' | '\n')).collect();
    BASE64.decode(encoded).map(Bytes::from).map_err(|_| Error::BadPasswordHash)
}

fn has_no_password(user: &User) -> bool {
    user.options.is_some_and(|options| options.no_password)
}

fn has_root_role(user: &User) -> bool {
    user.roles.iter().any(|role| role == ROOT_ROLE)
}

impl Default for Store {
    fn default() -> Self {
        Loader::default().finish()
    }
}

impl Store {
    /// Whether authentication is on.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// How often users and roles have changed, in a way.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The changes of rows since they were taken the last time.
    pub fn take_ops(&mut self) -> Vec<TableOp> {
        std::mem::take(&mut self.ops)
    }

    // Switching it on and off.

    /// From now on requests are checked. Says whether that is new.
    ///
    /// # Errors
    /// [`Error::RootUserNotExist`], [`Error::RootRoleNotExist`].
    pub fn enable(&mut self) -> Result<bool, Error> {
        if self.enabled {
            return Ok(false);
        }
        let root = self.users.get(ROOT_USER).ok_or(Error::RootUserNotExist)?;
        if !has_root_role(root) {
            return Err(Error::RootRoleNotExist);
        }
        self.enabled = true;
        self.ops.push(TableOp::put(Table::Auth, ENABLED, Bytes::from_static(&[1])));
        Ok(true)
    }

    /// From now on they are not. Says whether that is new.
    pub fn disable(&mut self) -> bool {
        if !self.enabled {
            return false;
        }
        self.enabled = false;
        self.ops.push(TableOp::put(Table::Auth, ENABLED, Bytes::from_static(&[0])));
        self.changed();
        true
    }

    // Users.

    /// # Errors
    /// [`Error::UserEmpty`], [`Error::UserAlreadyExist`], [`Error::BadPasswordHash`].
    pub fn add_user(&mut self, request: &AuthUserAddRequest) -> Result<(), Error> {
        if request.name.is_empty() {
            return Err(Error::UserEmpty);
        }
        if self.users.contains_key(&request.name) {
            return Err(Error::UserAlreadyExist);
        }
        let options = request.options.unwrap_or(UserAddOptions { no_password: false });
        let password =
            if options.no_password { Bytes::new() } else { stored_hash(&request.hashed_password)? };
        let name = Bytes::copy_from_slice(request.name.as_bytes());
        self.put_user(User { name, password, roles: Vec::new(), options: Some(options) });
        self.changed();
        Ok(())
    }

    /// # Errors
    /// [`Error::InvalidManagement`] for `root` while authentication is on, [`Error::UserNotFound`].
    pub fn delete_user(&mut self, name: &str) -> Result<(), Error> {
        if self.enabled && name == ROOT_USER {
            return Err(Error::InvalidManagement);
        }
        let user = self.users.remove(name).ok_or(Error::UserNotFound)?;
        self.permitted.remove(name);
        self.ops.push(TableOp::delete(Table::AuthUsers, user.name));
        self.changed();
        Ok(())
    }

    /// # Errors
    /// [`Error::UserNotFound`], [`Error::BadPasswordHash`].
    pub fn change_password(&mut self, request: &AuthUserChangePasswordRequest) -> Result<(), Error> {
        let user = self.users.get(&request.name).ok_or(Error::UserNotFound)?;
        let password =
            if has_no_password(user) { Bytes::new() } else { stored_hash(&request.hashed_password)? };
        self.put_user(User { password, ..user.clone() });
        self.changed();
        Ok(())
    }

    /// # Errors
    /// [`Error::UserNotFound`], [`Error::RoleNotFound`].
    pub fn grant_role(&mut self, user: &str, role: &str) -> Result<(), Error> {
        let known = self.users.get(user).ok_or(Error::UserNotFound)?;
        // The role `root` needs nobody to create it.
        if role != ROOT_ROLE && !self.roles.contains_key(role) {
            return Err(Error::RoleNotFound);
        }
        let Err(at) = known.roles.binary_search_by(|known| known.as_str().cmp(role)) else { return Ok(()) };
        let mut known = known.clone();
        known.roles.insert(at, role.to_owned());
        self.put_user(known);
        self.changed();
        Ok(())
    }

    /// # Errors
    /// [`Error::InvalidManagement`] for the role `root` of the user `root` while authentication is on,
    /// [`Error::UserNotFound`], [`Error::RoleNotGranted`].
    pub fn revoke_role(&mut self, user: &str, role: &str) -> Result<(), Error> {
        if self.enabled && user == ROOT_USER && role == ROOT_ROLE {
            return Err(Error::InvalidManagement);
        }
        let known = self.users.get(user).ok_or(Error::UserNotFound)?;
        let without = without_role(known, role).ok_or(Error::RoleNotGranted)?;
        self.put_user(without);
        self.changed();
        Ok(())
    }

    /// A user's roles, in order.
    ///
    /// # Errors
    /// [`Error::UserNotFound`].
    pub fn user_roles(&self, name: &str) -> Result<Vec<String>, Error> {
        Ok(self.users.get(name).ok_or(Error::UserNotFound)?.roles.clone())
    }

    /// The names of all users, in order.
    pub fn users(&self) -> Vec<String> {
        self.users.keys().cloned().collect()
    }

    /// The hashes of all users' passwords.
    pub fn password_hashes(&self) -> impl Iterator<Item = &[u8]> {
        self.users.values().map(|user| &user.password[..]).filter(|hash| !hash.is_empty())
    }

    /// The hash of a user's password. None if there is no such user, or it can have no password.
    pub fn password_hash(&self, name: &str) -> Option<Bytes> {
        self.users.get(name).filter(|user| !has_no_password(user)).map(|user| user.password.clone())
    }

    // Roles.

    /// # Errors
    /// [`Error::RoleEmpty`], [`Error::RoleAlreadyExist`].
    pub fn add_role(&mut self, name: &str) -> Result<(), Error> {
        if name.is_empty() {
            return Err(Error::RoleEmpty);
        }
        if self.roles.contains_key(name) {
            return Err(Error::RoleAlreadyExist);
        }
        let role = Role { name: Bytes::copy_from_slice(name.as_bytes()), key_permission: Vec::new() };
        self.put_role(name, role);
        self.changed();
        Ok(())
    }

    /// Takes the role from all who have it, too.
    ///
    /// # Errors
    /// [`Error::InvalidManagement`] for `root` while authentication is on, [`Error::RoleNotFound`].
    pub fn delete_role(&mut self, name: &str) -> Result<(), Error> {
        if self.enabled && name == ROOT_ROLE {
            return Err(Error::InvalidManagement);
        }
        let role = self.roles.remove(name).ok_or(Error::RoleNotFound)?;
        self.ops.push(TableOp::delete(Table::AuthRoles, role.name));
        let affected: Vec<User> = self.users.values().filter_map(|user| without_role(user, name)).collect();
        for user in affected {
            self.put_user(user);
        }
        self.changed();
        Ok(())
    }

    /// What a role permits. The role `root` permits everything, whatever was granted to it.
    ///
    /// # Errors
    /// [`Error::RoleNotFound`].
    pub fn role_permissions(&self, name: &str) -> Result<Vec<Permission>, Error> {
        let role = self.roles.get(name).ok_or(Error::RoleNotFound)?;
        if name == ROOT_ROLE {
            let everything = Permission {
                perm_type: Type::Readwrite.into(),
                key: Bytes::new(),
                range_end: Bytes::from_static(b"\0"),
            };
            return Ok(vec![everything]);
        }
        Ok(role.key_permission.clone())
    }

    /// The names of all roles, in order.
    pub fn roles(&self) -> Vec<String> {
        self.roles.keys().cloned().collect()
    }

    /// Grants a permission, or changes its kind where the same range is permitted already.
    ///
    /// # Errors
    /// [`Error::PermissionNotGiven`], [`Error::InvalidManagement`] for a range of no keys,
    /// [`Error::RoleNotFound`].
    pub fn grant_permission(&mut self, request: &AuthRoleGrantPermissionRequest) -> Result<(), Error> {
        let permission = request.perm.as_ref().ok_or(Error::PermissionNotGiven)?;
        if !is_grantable(&permission.key, &permission.range_end) {
            return Err(Error::InvalidManagement);
        }
        let mut role = self.roles.get(&request.name).ok_or(Error::RoleNotFound)?.clone();
        let at = role.key_permission.partition_point(|known| known.key < permission.key);
        // Of several for the same key etcd only looks at the first.
        match role.key_permission.get_mut(at) {
            Some(known) if known.key == permission.key && known.range_end == permission.range_end => {
                known.perm_type = permission.perm_type;
            }
            _ => {
                // As slices of the entry they would keep all of it.
                role.key_permission.push(Permission {
                    perm_type: permission.perm_type,
                    key: Bytes::copy_from_slice(&permission.key),
                    range_end: Bytes::copy_from_slice(&permission.range_end),
                });
                role.key_permission.sort_by(|a, b| a.key.cmp(&b.key));
            }
        }
        self.put_role(&request.name, role);
        self.changed();
        Ok(())
    }

    /// # Errors
    /// [`Error::RoleNotFound`], [`Error::PermissionNotGranted`].
    pub fn revoke_permission(&mut self, request: &AuthRoleRevokePermissionRequest) -> Result<(), Error> {
        let mut role = self.roles.get(&request.role).ok_or(Error::RoleNotFound)?.clone();
        let before = role.key_permission.len();
        role.key_permission.retain(|known| known.key != request.key || known.range_end != request.range_end);
        if role.key_permission.len() == before {
            return Err(Error::PermissionNotGranted);
        }
        self.put_role(&request.role, role);
        self.changed();
        Ok(())
    }

    // Questions.

    /// Whether a caller may do this to these keys, in the form of a request: a key and a range end.
    ///
    /// # Errors
    /// [`Error::UserEmpty`] for nobody, [`Error::OldRevision`], [`Error::PermissionDenied`].
    pub fn check(&self, caller: &Caller, access: Access, key: &[u8], range_end: &[u8]) -> Result<(), Error> {
        if !self.enabled {
            return Ok(());
        }
        if caller.revision == 0 {
            return Err(Error::UserEmpty);
        }
        if caller.revision < self.revision {
            return Err(Error::OldRevision);
        }
        let user = self.users.get(&caller.user).ok_or(Error::PermissionDenied)?;
        if has_root_role(user) {
            return Ok(());
        }
        let covers = self.permitted.get(&caller.user).is_some_and(|permitted| {
            let ranges = match access {
                Access::Read => &permitted.read,
                Access::Write => &permitted.write,
            };
            ranges.covers(key, range_end)
        });
        if covers { Ok(()) } else { Err(Error::PermissionDenied) }
    }

    /// Whether a caller may do what only those with the role `root` may.
    ///
    /// # Errors
    /// [`Error::UserEmpty`] for nobody, [`Error::UserNotFound`], [`Error::PermissionDenied`].
    pub fn check_root(&self, caller: &Caller) -> Result<(), Error> {
        if !self.enabled {
            return Ok(());
        }
        if caller.user.is_empty() {
            return Err(Error::UserEmpty);
        }
        let user = self.users.get(&caller.user).ok_or(Error::UserNotFound)?;
        if has_root_role(user) { Ok(()) } else { Err(Error::PermissionDenied) }
    }

    /// Whether a user has a role.
    pub fn has_role(&self, user: &str, role: &str) -> bool {
        self.users.get(user).is_some_and(|user| user.roles.iter().any(|known| known == role))
    }

    // How it is kept.

    fn changed(&mut self) {
        self.revision += 1;
        let revision = Bytes::copy_from_slice(&self.revision.to_be_bytes());
        self.ops.push(TableOp::put(Table::Auth, REVISION, revision));
    }

    fn put_user(&mut self, user: User) {
        let name = String::from_utf8_lossy(&user.name).into_owned();
        self.ops.push(TableOp::put(Table::AuthUsers, user.name.clone(), user.encode_to_vec()));
        self.permitted.insert(name.clone(), permitted(&self.roles, &user));
        self.users.insert(name, user);
    }

    fn put_role(&mut self, name: &str, role: Role) {
        self.ops.push(TableOp::put(Table::AuthRoles, role.name.clone(), role.encode_to_vec()));
        self.roles.insert(name.to_owned(), role);
        for (user, known) in &self.users {
            if known.roles.iter().any(|role| role == name) {
                self.permitted.insert(user.clone(), permitted(&self.roles, known));
            }
        }
    }
}

/// The same user without a role; none if it does not have it.
fn without_role(user: &User, role: &str) -> Option<User> {
    let roles: Vec<String> = user.roles.iter().filter(|known| *known != role).cloned().collect();
    (roles.len() < user.roles.len()).then(|| User { roles, ..user.clone() })
}

fn permitted(roles: &BTreeMap<String, Role>, user: &User) -> Permitted {
    let of = |kind: Type| {
        let granted =
            user.roles.iter().filter_map(|role| roles.get(role)).flat_map(|role| &role.key_permission);
        // A kind that nobody knows permits nothing, as in etcd.
        let granted = granted.filter(move |permission| {
            permission.perm_type == kind as i32 || permission.perm_type == Type::Readwrite as i32
        });
        Ranges::union(granted.map(|permission| (&permission.key, &permission.range_end)))
    };
    Permitted { read: of(Type::Read), write: of(Type::Write) }
}

/// Makes a store out of the rows of its tables, in any order.
#[derive(Debug, Default)]
pub struct Loader {
    enabled: bool,
    revision: u64,
    users: BTreeMap<String, User>,
    roles: BTreeMap<String, Role>,
}

/// A row that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged;

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("damaged row")
    }
}

impl std::error::Error for Damaged {}

impl Loader {
    /// The tables that hold what is loaded.
    pub const TABLES: [Table; 3] = [Table::Auth, Table::AuthUsers, Table::AuthRoles];

    /// Takes in a row.
    ///
    /// # Errors
    /// It is not one that a store writes.
    pub fn row(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), Damaged> {
        let name = || std::str::from_utf8(key).map(str::to_owned).map_err(|_| Damaged);
        match table {
            Table::Auth if key == ENABLED => self.enabled = value == [1],
            Table::Auth if key == REVISION => {
                self.revision = u64::from_be_bytes(value.try_into().map_err(|_| Damaged)?);
            }
            Table::AuthUsers => {
                let user = User::decode(value).ok().filter(|user| user.name == key).ok_or(Damaged)?;
                self.users.insert(name()?, user);
            }
            Table::AuthRoles => {
                let role = Role::decode(value).ok().filter(|role| role.name == key).ok_or(Damaged)?;
                self.roles.insert(name()?, role);
            }
            _ => {}
        }
        Ok(())
    }

    /// The store.
    pub fn finish(self) -> Store {
        let Loader { enabled, revision, users, roles } = self;
        let permitted = users.iter().map(|(name, user)| (name.clone(), permitted(&roles, user))).collect();
        let is_new = revision == 0;
        let mut store = Store { enabled, revision, users, roles, permitted, ops: Vec::new() };
        if is_new {
            store.changed();
            assert_eq!(store.revision, FIRST_REVISION);
        }
        store
    }
}
