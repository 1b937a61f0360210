//! Runs the scripts in `golden/`: commands, a line `---`, and all that happened. `UPDATE_GOLDEN=1`
//! rewrites what happened, to be read in review.
//!
//! ```text
//! cluster voters=1,2,3 [learners=4] [outsiders=5] [pre_vote=off] [check_quorum=off] [window=2] [window_bytes=N]
//!         [append=BYTES] [uncommitted=BYTES] [catch_up=N] [reads=N] [logs=ID:TERM,TERM,..;..]
//!         [snapshot_ticks=N] [long_log=on]     on: disks still have what memory has let go of
//! campaign 1 | tick 1 20 | propose 1 a b | read 1 7 | transfer 1 2 | stalled 1 | handover 1
//! change 1 [joint|explicit] v4 l5 r3 | change 1 leave       voter, learner, remove; leave
//! deliver [1>2 ...] | lose [1>2 ...]      waiting messages, all or those on these links
//! cut 1>2 1-3 | isolate 1 | heal          links that lose everything from now on
//! hold 1 disk|apply | release 1 | sync 1 | crash 1 | restart 1
//! bound 1 t2 a b          proposals for term 2 alone
//! gone 1 2                member 1 is told that the process of 2 has ended
//! hold-snapshots | snapshots | unreachable 1 2 | snapshot-arrived 1 2 | snapshot-lost 1 2
//! send 2>1 t3 MsgAppResp matched 4        a message as another implementation may send it
//!     MsgApp 4/2 5/3:text commit=4 | MsgSnap 7/3 voters=1,2 | MsgHeartbeat 4 context | MsgProp a b
//!     MsgReadIndex context | MsgVote 4 2 [transfer] | MsgTransferLeader | MsgTimeoutNow
//! sent                    what waits to be delivered, which then is lost
//! log 1 | peers 1 | conf 1 | quiet CMD    quiet: do it, write nothing down
//! ```
#![allow(clippy::unwrap_used)]

mod support;

use raft::*;
use std::fmt::Write as _;
use std::path::Path;
use support::Cluster;

#[test]
fn golden_scripts() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    let mut wrong = Vec::new();
    for file in files {
        eprintln!("{}", file.display());
        let text = std::fs::read_to_string(&file).unwrap();
        let result = run(&text);
        if result != text {
            if update {
                std::fs::write(&file, result).unwrap();
            } else {
                println!("{}: now\n{result}", file.display());
                wrong.push(file);
            }
        }
    }
    assert!(wrong.is_empty(), "these scripts end otherwise: {wrong:?}");
}

/// The script with each block's output as it is now. Blocks are separated by empty lines.
fn run(text: &str) -> String {
    let mut cluster = Cluster::default();
    let blocks = text.trim_end().split("\n\n").map(|block| {
        let commands = block.split("\n---").next().unwrap();
        let lines = commands.lines().filter(|line| !line.starts_with('#'));
        let mut acted = false;
        for line in lines {
            acted = true;
            command(&mut cluster, line);
        }
        let trace = std::mem::take(&mut cluster.trace);
        if acted { format!("{commands}\n---\n{trace}").trim_end().to_string() } else { commands.to_string() }
    });
    blocks.collect::<Vec<_>>().join("\n\n") + "\n"
}

fn command(cluster: &mut Cluster, line: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (verb, rest) = words.split_first().unwrap();
    let id = |at: usize| rest[at].parse::<u64>().unwrap_or_else(|_| panic!("a member in {line:?}"));
    match *verb {
        "quiet" => {
            let kept = cluster.trace.len();
            command(cluster, &rest.join(" "));
            cluster.trace.truncate(kept);
        }
        "cluster" => *cluster = build(rest),
        "campaign" => cluster.campaign(id(0)),
        "tick" => cluster.tick(id(0), id(1)),
        "propose" | "bound" => {
            let only_in = (*verb == "bound").then(|| Term(rest[1][1..].parse().unwrap()));
            let proposals = rest[1 + usize::from(only_in.is_some())..].iter().zip(1..).map(|(text, id)| {
                let data = match text.strip_prefix("bytes=") {
                    Some(len) => vec![b'x'; len.parse().unwrap()],
                    None => text.as_bytes().to_vec(),
                };
                Proposal { id, kind: EntryKind::Normal, data: data.into(), only_in }
            });
            let proposals = proposals.collect();
            cluster.with(id(0), |raft| raft.propose(proposals));
        }
        "change" => {
            let change = change(&rest[1..]);
            cluster.change(id(0), &change);
        }
        "read" => cluster.with(id(0), |raft| raft.read_index(ReadId(id(1)))),
        "transfer" => cluster.with(id(0), |raft| raft.transfer_leader(NodeId(id(1)))),
        "gone" => cluster.with(id(0), |raft| raft.leader_gone(NodeId(id(1)))),
        "stalled" => cluster.with(id(0), Raft::stalled),
        "handover" => {
            cluster.with(id(0), Raft::hand_over);
        }
        "deliver" => cluster.deliver_where(|m| on(rest, m)),
        "lose" => {
            let lost = cluster.lose_where(|m| on(rest, m));
            writeln!(cluster.trace, "{lost} lost").unwrap();
        }
        "cut" => rest.iter().for_each(|link| {
            let (a, b) = link.split_once(['>', '-']).unwrap();
            let (a, b) = (a.parse().unwrap(), b.parse().unwrap());
            cluster.cut(a, b);
            if link.contains('-') {
                cluster.cut(b, a);
            }
        }),
        "isolate" => cluster.isolate(id(0)),
        "heal" => cluster.heal(),
        "hold" => {
            let member = cluster.members.get_mut(&NodeId(id(0))).unwrap();
            match rest[1] {
                "disk" => member.hold_disk = true,
                _ => member.hold_apply = true,
            }
        }
        "release" => {
            let member = cluster.members.get_mut(&NodeId(id(0))).unwrap();
            (member.hold_disk, member.hold_apply) = (false, false);
            cluster.release(id(0));
        }
        "sync" => cluster.sync(id(0)),
        "crash" => cluster.crash(id(0)),
        "restart" => cluster.restart(id(0)),
        "hold-snapshots" => cluster.hold_snapshots = true,
        "snapshots" => {
            cluster.hold_snapshots = false;
            cluster.make_snapshots();
        }
        "unreachable" => cluster.with(id(0), |raft| raft.report_unreachable(NodeId(id(1)))),
        "snapshot-arrived" => cluster.with(id(0), |raft| raft.report_snapshot(NodeId(id(1)), true)),
        "snapshot-lost" => cluster.with(id(0), |raft| raft.report_snapshot(NodeId(id(1)), false)),
        "send" => forge(cluster, rest),
        "sent" => cluster.show_network(),
        "log" => cluster.show_log(id(0)),
        "peers" => cluster.show_peers(id(0)),
        "conf" => cluster.show_conf(id(0)),
        _ => panic!("unknown command {line:?}"),
    }
}

fn on(links: &[&str], message: &Message) -> bool {
    let link = format!("{}>{}", message.from, message.to);
    links.is_empty() || links.contains(&link.as_str())
}

fn ids(list: &str) -> Vec<NodeId> {
    list.split(',').map(|id| NodeId(id.parse().unwrap())).collect()
}

fn build(options: &[&str]) -> Cluster {
    let mut conf_state = ConfState::default();
    let mut outsiders = Vec::new();
    let mut logs = Vec::new();
    let mut long_log = false;
    let mut tuned = Config::new(NodeId(1), 0);
    for option in options {
        let (name, value) = option.split_once('=').unwrap();
        let number = || value.parse::<usize>().unwrap();
        match name {
            "voters" => conf_state.voters = ids(value),
            "learners" => conf_state.learners = ids(value),
            "outsiders" => outsiders = ids(value).into_iter().map(|id| id.0).collect(),
            "pre_vote" => tuned.pre_vote = value == "on",
            "check_quorum" => tuned.check_quorum = value == "on",
            "window" => tuned.limits.window_messages = number(),
            "window_bytes" => tuned.limits.window_bytes = number(),
            "append" => tuned.limits.append_bytes = number(),
            "uncommitted" => tuned.limits.uncommitted_bytes = number(),
            "catch_up" => tuned.limits.catch_up_entries = number() as u64,
            "reads" => tuned.limits.reads = number(),
            "long_log" => long_log = value == "on",
            "logs" => logs = value.split(';').map(log_of).collect(),
            "snapshot_ticks" => tuned.limits.snapshot_ticks = number() as u64,
            _ => panic!("unknown option {option:?}"),
        }
    }
    let tune = |config: &mut Config| {
        let (id, seed) = (config.id, config.seed);
        *config = Config { id, seed, ..tuned.clone() };
    };
    let mut cluster = Cluster::new(&conf_state, &outsiders, tune);
    cluster.long_log = long_log;
    for (id, entries) in logs {
        let term = entries.last().map_or(Term(0), |e: &Entry| e.term);
        let hard_state = HardState { term, vote: None, commit: Index(1) };
        let snapshot = SnapshotMeta { conf_state: conf_state.clone(), ..SnapshotMeta::default() };
        cluster.start_from(id, support::Disk { hard_state, snapshot, entries }, &tune);
    }
    cluster
}

/// `1:1,3,3`: the log of member 1, by its terms. The first entry is committed.
fn log_of(text: &str) -> (NodeId, Vec<Entry>) {
    let (id, terms) = text.split_once(':').unwrap();
    let entries = terms.split(',').zip(1..).map(|(term, index)| {
        let (term, index) = (Term(term.parse().unwrap()), Index(index));
        Entry { term, index, kind: EntryKind::Normal, data: [].into() }
    });
    (NodeId(id.parse().unwrap()), entries.collect())
}

fn change(words: &[&str]) -> ConfChangeV2 {
    let mut out = ConfChangeV2::default();
    for word in words {
        let kind = match word.chars().next().unwrap() {
            'v' => ChangeKind::AddNode,
            'r' => ChangeKind::RemoveNode,
            'j' => {
                out.transition = Transition::JointImplicit;
                continue;
            }
            'e' => {
                out.transition = Transition::JointExplicit;
                continue;
            }
            _ if *word == "leave" => continue,
            'l' => ChangeKind::AddLearnerNode,
            _ => panic!("unknown change {word:?}"),
        };
        out.changes.push(Change { kind, node: NodeId(word[1..].parse().unwrap()) });
    }
    out
}

/// `7/3`: index 7, term 3.
fn place(text: &str) -> (Index, Term) {
    let (index, term) = text.split_once('/').unwrap();
    (Index(index.parse().unwrap()), Term(term.parse().unwrap()))
}

fn forge(cluster: &mut Cluster, words: &[&str]) {
    let (from, to) = words[0].split_once('>').unwrap();
    let term = words[1][1..].parse().unwrap();
    let number = |at: usize| Index(words[at].parse().unwrap());
    let body = match words[2] {
        "MsgAppResp" if words[3] == "matched" => Body::AppendResponse { index: number(4), reject: None },
        "MsgAppResp" => {
            let reject = Rejection { hint: number(5), hint_term: Term(number(6).0) };
            Body::AppendResponse { index: number(4), reject: Some(reject) }
        }
        "MsgVoteResp" => Body::VoteResponse(Answer { reject: words[3] == "no", ..Answer::default() }),
        "MsgPreVoteResp" => Body::PreVoteResponse(Answer { reject: words[3] == "no", ..Answer::default() }),
        "MsgVote" | "MsgPreVote" => {
            let transfer = words.get(5) == Some(&"transfer");
            let show = Candidacy { last_index: number(3), last_term: Term(number(4).0), transfer };
            if words[2] == "MsgVote" { Body::Vote(show) } else { Body::PreVote(show) }
        }
        "MsgHeartbeat" => {
            Body::Heartbeat { commit: number(3), context: words.get(4).unwrap_or(&"").as_bytes().into() }
        }
        "MsgHeartbeatResp" => Body::HeartbeatResponse {
            context: match words[3].parse::<u64>() {
                Ok(round) => round.to_be_bytes().as_slice().into(),
                Err(_) => words[3].as_bytes().into(),
            },
        },
        "MsgApp" => {
            let (prev_index, prev_term) = place(words[3]);
            let (commit, entries) = words[4..].split_last().unwrap();
            let entries = entries.iter().map(|word| {
                let (at, text) = word.split_once(':').unwrap_or((word, ""));
                let (index, term) = place(at);
                Entry { term, index, kind: EntryKind::Normal, data: text.as_bytes().into() }
            });
            let commit = Index(commit.strip_prefix("commit=").unwrap().parse().unwrap());
            Body::Append { prev_index, prev_term, entries: entries.collect(), commit }
        }
        "MsgSnap" => {
            let (index, term) = place(words[3]);
            let voters = ids(words[4].strip_prefix("voters=").unwrap());
            let data = format!("foreign state at {index}").into_bytes().into();
            Body::Snapshot(Snapshot {
                meta: SnapshotMeta { conf_state: ConfState::of(voters), index, term },
                data,
            })
        }
        "MsgProp" => {
            let entry = |text: &&str| {
                let (term, index) = (Term(0), Index(0));
                Entry { term, index, kind: EntryKind::Normal, data: text.as_bytes().into() }
            };
            Body::Propose { entries: words[3..].iter().map(entry).collect() }
        }
        "MsgReadIndex" => Body::ReadIndex { context: words[3].as_bytes().into() },
        "MsgReadIndexResp" => {
            Body::ReadIndexResponse { index: number(3), context: words[4].as_bytes().into() }
        }
        "MsgTransferLeader" => Body::TransferLeader,
        "MsgTimeoutNow" => Body::TimeoutNow,
        _ => panic!("cannot forge {words:?}"),
    };
    cluster.receive(from.parse().unwrap(), to.parse().unwrap(), term, body);
}
