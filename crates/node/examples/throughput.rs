//! How long a node of one voter takes per proposal, without disk and machine:
//! `cargo run --release -p node --example throughput`.

use node::*;

const BATCH: u64 = 300;
const BATCHES: u64 = 10_000;

#[allow(clippy::disallowed_methods)] // A measurement may look at the clock.
fn main() -> Result<(), Error> {
    let snapshot = SnapshotMeta { conf_state: ConfState::of([NodeId(1)]), ..SnapshotMeta::default() };
    let mut node = Node::new(Config::new(NodeId(1), 1), Restored { snapshot, ..Restored::default() })?;
    let (mut effects, mut applied) = (Vec::new(), 0);
    node.handle(Input::Campaign, &mut effects);
    let start = std::time::Instant::now();
    for batch in 0..BATCHES {
        let proposal =
            |id| Proposal { id, kind: EntryKind::Normal, data: vec![7; 300].into(), only_in: None };
        node.handle(Input::Propose((0..BATCH).map(proposal).collect()), &mut effects);
        node.handle(Input::ReadIndex(ReadId(batch)), &mut effects);
        while !effects.is_empty() {
            for effect in std::mem::take(&mut effects) {
                match effect {
                    Effect::Persist(p) if p.must_sync => node.handle(Input::Persisted(p.id), &mut effects),
                    Effect::Apply(entries) => {
                        applied += entries.len() as u64;
                        let last = entries.last().map_or(Index(0), |entry| entry.index);
                        node.handle(Input::Applied(last), &mut effects);
                    }
                    _ => {}
                }
            }
        }
    }
    let took = start.elapsed();
    println!("{applied} proposals in {took:?}: {} ns each", took.as_nanos() / u128::from(applied));
    println!("log in memory: {} bytes", node.status().log_bytes);
    Ok(())
}
