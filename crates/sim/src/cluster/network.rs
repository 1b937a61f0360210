//! The false network between machines.

use super::plan::{MILLISECOND, Time};
use crate::random::Random;

/// What one direction between two machines does to messages.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Link {
    pub(crate) cut: bool,
    /// Out of a thousand.
    pub(crate) loss: u64,
    /// Out of a thousand.
    pub(crate) duplication: u64,
    /// Added to every message.
    pub(crate) delay: Time,
    /// Added by chance, up to this: later messages overtake earlier ones.
    pub(crate) jitter: Time,
    /// When the last message arrives, which those without jitter do not overtake.
    last: Time,
}

/// All links.
pub(crate) struct Network {
    size: usize,
    links: Vec<Link>,
}

impl Network {
    pub(crate) fn new(size: usize) -> Network {
        Network { size, links: vec![Link::default(); size * size] }
    }

    pub(crate) fn link(&mut self, from: usize, to: usize) -> &mut Link {
        &mut self.links[from * self.size + to]
    }

    /// All links work, and well.
    pub(crate) fn heal(&mut self) {
        for link in &mut self.links {
            *link = Link { last: link.last, ..Link::default() };
        }
    }

    /// When copies of a message that is sent now arrive: none, one or two.
    pub(crate) fn send(
        &mut self,
        from: usize,
        to: usize,
        now: Time,
        random: &mut Random,
    ) -> [Option<Time>; 2] {
        let link = self.link(from, to);
        if link.cut || link.loss > 0 && random.below(1000) < link.loss {
            return [None, None];
        }
        let twice = link.duplication > 0 && random.below(1000) < link.duplication;
        [Some(link.arrival(now, random)), twice.then(|| link.arrival(now, random))]
    }
}

impl Link {
    fn arrival(&mut self, now: Time, random: &mut Random) -> Time {
        let at = now + self.delay + MILLISECOND / 10 + random.below(MILLISECOND);
        if self.jitter > 0 {
            return at + random.below(self.jitter);
        }
        self.last = self.last.max(at);
        self.last
    }
}
