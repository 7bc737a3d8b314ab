//! Which Sentinels answered a discovery, and where: whether a Sentinel that was heard before is still there under that
//! identity. No I/O.
//!
//! Guarantees: a Sentinel has left only if every address where it was heard, or where another Sentinel lists it,
//! answers as somebody else: it restarted with a new id, or its MYID is refused from now on. An address that several
//! Sentinels share proves nothing: they are listed under addresses of their own. Leaves to others: what follows (fence,
//! failover).

use super::answer::{Answer, Heard, has_flag};
use super::identity::{Identity, Speaker};
use super::round::Asked;
use crate::config::Endpoint;

/// The Sentinels that answered, and what they say about the others.
#[derive(Debug, Default)]
pub struct Presence {
    answered: Vec<Present>,
    /// The addresses under which each is listed by others.
    listed: Vec<(Identity, Endpoint)>,
    /// Addresses that have given more than one id before.
    varying: Vec<Endpoint>,
}

/// One answer.
#[derive(Debug)]
struct Present {
    who: Speaker,
    /// It is not in TILT, and shows no failover.
    calm: bool,
}

impl Presence {
    /// By these answers. `primary`: the known one; `varying`: the addresses that have given more than one id before.
    pub fn of(asked: &[Asked], primary: Option<&Endpoint>, varying: Vec<Endpoint>) -> Self {
        let mut all = Self { varying, ..Self::default() };
        for (asked, answer) in asked.iter().filter_map(|asked| Some((asked, asked.answer()?))) {
            all.answered.push(Present { who: asked.speaker(), calm: is_calm(answer, primary) });
            let listed = answer.peers.iter().filter_map(|peer| Some((peer.id.as_ref()?, &peer.endpoint)));
            all.listed.extend(listed.map(|(id, endpoint)| (Identity::Id(id.clone()), endpoint.clone())));
        }
        all
    }

    /// Whether other Sentinels answer at each address of this one.
    pub fn has_left(&self, who: &Identity, announced: &Endpoint) -> bool {
        self.is_replaced(who, announced, |_| true)
    }

    /// Like [`Presence::has_left`], and none of those is in TILT or reports a failover: none continues what this one
    /// began.
    pub fn has_left_calmly(&self, who: &Identity, announced: &Endpoint) -> bool {
        self.is_replaced(who, announced, |seat| seat.calm)
    }

    fn is_replaced(&self, who: &Identity, announced: &Endpoint, by: impl Fn(&Present) -> bool) -> bool {
        let is_balancer = self.varying.contains(announced) && !self.listed.iter().any(|(_, place)| place == announced);
        let replaced = |place: &Endpoint| self.answered.iter().any(|seat| seat.who.announced == *place && by(seat));
        !is_balancer
            && self.answered.iter().all(|seat| seat.who.identity != *who)
            && replaced(announced)
            && self.listed.iter().filter(|(listed, _)| listed == who).all(|(_, place)| replaced(place))
    }
}

/// A Sentinel that names another primary may have finished the failover: only a verified switch ends that one.
fn is_calm(answer: &Answer, primary: Option<&Endpoint>) -> bool {
    !answer.tilt
        && match &answer.heard {
            Heard::Known(view) => {
                primary.is_none_or(|primary| view.primary == *primary) && !has_flag(&view.flags, "failover_in_progress")
            }
            Heard::Unknown => true,
            Heard::NoAddress(_) => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Endpoint {
        Endpoint::tcp("10.0.0.1", port).unwrap()
    }

    fn id(name: &str) -> Identity {
        Identity::Id(name.into())
    }

    /// Which Sentinels answered where: `a@1`, with `!` if it is not calm; `@1` gives no id.
    fn presence(answered: &[&str], listed: &[(&str, u16)], varying: &[u16]) -> Presence {
        let seat = |text: &&str| {
            let (who, place) = text.trim_end_matches('!').split_once('@').unwrap();
            let announced = at(place.parse().unwrap());
            let identity = Identity::new(Some(who).filter(|who| !who.is_empty()), &announced);
            Present { who: Speaker { identity, announced }, calm: !text.ends_with('!') }
        };
        Presence {
            answered: answered.iter().map(seat).collect(),
            listed: listed.iter().map(|(who, place)| (id(who), at(*place))).collect(),
            varying: varying.iter().copied().map(at).collect(),
        }
    }

    #[test]
    fn who_answers_under_another_identity_where_it_was_has_left() {
        for answered in ["new@1", "@1"] {
            for listed in [&[][..], &[("a", 1)], &[("new", 1)]] {
                assert!(presence(&[answered, "b@2"], listed, &[]).has_left_calmly(&id("a"), &at(1)));
            }
        }
        // From now on it gives its id.
        assert!(presence(&["new@1"], &[], &[]).has_left_calmly(&Identity::At(at(1)), &at(1)));
        // It is there, or silent, or its successor continues a failover.
        assert!(!presence(&["a@1", "b@2"], &[], &[]).has_left(&id("a"), &at(1)));
        assert!(!presence(&["b@2"], &[], &[]).has_left(&id("a"), &at(1)));
        let goes_on = presence(&["new@1!"], &[], &[]);
        assert!(goes_on.has_left(&id("a"), &at(1)) && !goes_on.has_left_calmly(&id("a"), &at(1)));
    }

    #[test]
    fn behind_a_load_balancer_nobody_has_left() {
        // The others list it at its own address, which is silent, or answers as itself.
        assert!(!presence(&["b@1"], &[("a", 7), ("b", 8)], &[]).has_left(&id("a"), &at(1)));
        assert!(!presence(&["b@1", "a@7"], &[("a", 7)], &[]).has_left(&id("a"), &at(1)));
        // Nobody lists it, and its address is shared.
        assert!(!presence(&["b@1"], &[], &[1]).has_left(&id("a"), &at(1)));
        // One that restarts repeatedly with a new id looks shared too, but the others list it there.
        assert!(presence(&["new@1", "b@2"], &[("a", 1)], &[1]).has_left(&id("a"), &at(1)));
        // Configured by name, listed by address.
        assert!(presence(&["new@1", "new@7"], &[("a", 7)], &[]).has_left(&id("a"), &at(1)));
    }
}
