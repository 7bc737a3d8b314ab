//! The replicas of a service, and which of them may be read from.
//!
//! Guarantees: the list is that of the Sentinel that won; a replica is unfit if more than half of the Sentinels that
//! list it say so, and the reason is kept. Leaves to others: ROLE and lag (pool, route), and the choice among fit
//! replicas (route).

use super::answer::{ReplicaAnswer, has_flag};
use super::cause::{Cause, Why};
use super::judge::Voice;
use super::snapshot::ReplicaView;
use crate::config::{AddressMap, Endpoint};
use crate::sort;

const BROKEN_LINK: &str = "its link to the primary is broken";

/// The replicas that the winner lists, judged by all voices.
pub fn merge(winner: &Voice<'_>, voices: &[Voice<'_>], primary: &Endpoint, map: &AddressMap) -> Vec<ReplicaView> {
    let mut replicas: Vec<ReplicaView> = Vec::new();
    for replica in winner.replicas {
        let known = replicas.iter().any(|view| view.announced == replica.announced);
        // The primary may still be listed as the replica that it was.
        if known || !replica.announces || replica.announced == *primary {
            continue;
        }
        let opinions: Vec<_> = voices.iter().filter_map(|voice| opinion(voice, &replica.announced)).collect();
        let (unfit, unfit_by_link) = unfit(&opinions).map_or((None, false), |(why, by_link)| (Some(why), by_link));
        replicas.push(ReplicaView {
            endpoint: map.apply(&replica.announced),
            announced: replica.announced.clone(),
            flags: replica.flags.clone(),
            link_ok: replica.link_ok,
            follows: replica.follows.clone(),
            offset: replica.offset,
            priority: replica.priority,
            unfit,
            unfit_by_link,
        });
    }
    sort::by(&mut replicas, |a, b| a.announced.cmp(&b.announced));
    replicas
}

fn opinion<'a>(voice: &Voice<'a>, announced: &Endpoint) -> Option<&'a ReplicaAnswer> {
    voice.replicas.iter().find(|replica| replica.announced == *announced)
}

/// Why most of them consider it unfit, and whether all of these give its link as the only reason.
fn unfit(opinions: &[&ReplicaAnswer]) -> Option<(Why, bool)> {
    let bad = |opinion: &ReplicaAnswer| {
        let flag = ["o_down", "s_down", "disconnected"].into_iter().find(|flag| has_flag(&opinion.flags, flag));
        flag.or((!opinion.link_ok).then_some(BROKEN_LINK))
    };
    let reasons: Vec<_> = opinions.iter().filter_map(|opinion| bad(opinion)).collect();
    if reasons.len() * 2 <= opinions.len() {
        return None;
    }
    let by_link = reasons.iter().all(|reason| *reason == BROKEN_LINK);
    let text = format!("{} in the eyes of {} of {} Sentinels", reasons[0], reasons.len(), opinions.len());
    let cause = match reasons[0] {
        "o_down" => Cause::ObjectivelyDown,
        "s_down" => Cause::SubjectivelyDown,
        "disconnected" => Cause::Disconnected,
        _ => Cause::LinkDown,
    };
    Some((Why::own(cause, text), by_link))
}

/// Keeps replicas fit that only have a broken link: after the loss of a primary every replica reports that for seconds
/// (rule 32).
pub fn keep_fitness(replicas: &mut [ReplicaView], before: &[ReplicaView]) {
    for replica in replicas.iter_mut().filter(|replica| replica.unfit_by_link) {
        let known = before.iter().find(|known| known.announced == replica.announced);
        if known.is_some_and(|known| known.unfit.is_none()) {
            (replica.unfit, replica.unfit_by_link) = (None, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(name: &str) -> Endpoint {
        Endpoint::tcp(name, 6379).unwrap()
    }

    fn replica(name: &str, flags: &str, link_ok: bool, announces: bool) -> ReplicaAnswer {
        let flags = flags.into();
        ReplicaAnswer { announced: at(name), flags, link_ok, follows: None, offset: 5, priority: 100, announces }
    }

    fn voice<'a>(index: usize, primary: &'a Endpoint, replicas: &'a [ReplicaAnswer]) -> Voice<'a> {
        Voice { index, primary, epoch: 1, flags: "master", replicas, tilt: false }
    }

    #[test]
    fn the_majority_judges_and_the_reason_is_kept() {
        let primary = at("p");
        let one = [replica("a", "slave,s_down", true, true), replica("b", "slave", false, true)];
        let two = [replica("a", "slave", true, true), replica("b", "slave", false, true)];
        let voices = [voice(0, &primary, &one), voice(1, &primary, &two), voice(2, &primary, &two)];
        let merged = merge(&voices[0], &voices, &primary, &AddressMap::default());
        assert_eq!(merged[0].unfit, None);
        assert!(
            merged[1].unfit.as_ref().is_some_and(|why| why.text().contains("link") && why.text().contains("3 of 3")),
            "{merged:?}"
        );
        assert!(merged[1].unfit_by_link && !merged[0].unfit_by_link, "{merged:?}");
        let alone = merge(&voices[0], &voices[..1], &primary, &AddressMap::default());
        assert!(
            alone[0].unfit.as_ref().is_some_and(|why| why.text().contains("s_down") && why.cause() == "s_down"),
            "{alone:?}"
        );
        assert!(!alone[0].unfit_by_link, "{alone:?}");
    }

    #[test]
    fn hidden_ones_doubles_and_the_primary_itself_are_not_listed() {
        let primary = at("p");
        let list = [replica("h", "slave", true, false), replica("p", "slave", true, true)];
        let more = [list.as_slice(), &[replica("a", "slave", true, true), replica("a", "slave", true, true)]].concat();
        let winner = voice(0, &primary, &more);
        let merged = merge(&winner, &[winner], &primary, &AddressMap::default());
        assert_eq!(merged.iter().map(|view| view.announced.clone()).collect::<Vec<_>>(), [at("a")]);
    }
}
