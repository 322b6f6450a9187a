//! What a request would pay into policies, looked at and not paid: for whoever asks how it would go, or how its caller
//! stands.

use http::HeaderMap;

use super::{PaidPolicies, Policies, Policy, PolicyPayment};
use crate::client::Client;
use crate::limit::{Charge, Decision, KeyMaker, Limiter, Nanos, Payer, PolicyId, are_allowed};
use crate::proxy::gate::policy_settings::{PolicyCost, PolicyKey};
use crate::proxy::wire::lines::Fields;
use crate::telemetry::ExplainedPolicy;

impl Policies {
    /// Those in which clients have buckets of their own.
    pub fn of_clients(&self) -> impl Iterator<Item = PolicyId> {
        self.all.iter().filter(|policy| policy.settings.key == PolicyKey::Client).map(|policy| policy.id)
    }

    /// Whether clients have buckets of their own in the policy of this name; `None` when there is none.
    pub fn is_of_clients(&self, name: &str) -> Option<bool> {
        let policy = self.all.iter().find(|policy| policy.settings.name == name)?;
        Some(policy.settings.key == PolicyKey::Client)
    }

    /// What is to be said of the caller's own buckets, its client's and its address's, of policies that are not on trial.
    pub(in crate::proxy::gate) fn standings(
        &self,
        (limiter, keys): (&dyn Limiter, &KeyMaker),
        (client, payer): (Option<&Client>, Payer),
        now: Nanos,
    ) -> Vec<(&str, Decision)> {
        let own = |policy: &&Policy| matches!(policy.settings.key, PolicyKey::Client | PolicyKey::Address);
        let foresee = |charge: Charge| limiter.foresee(&[charge.into()], now)[0];
        let said = |policy: &Policy| policy.charge(keys, (client, payer, &HeaderMap::new())).map(foresee);
        let told = self.all.iter().filter(own).filter(|policy| !policy.settings.shadow);
        told.filter_map(|policy| Some((policy.settings.name.as_str(), said(policy)?))).collect()
    }
}

impl PaidPolicies {
    /// What would be said to a request that is to pay into its caller's own bucket and those of the policies that are
    /// `met`, and whether it would go on. As [`pay`](Self::pay), but nothing is taken and nothing counted. The buckets of
    /// policies stand as they would afterwards.
    pub(in crate::proxy::gate) fn look(
        &mut self,
        (limiter, keys): (&dyn Limiter, &KeyMaker),
        (own, met): (Charge, &[u32]),
        who: (Option<&Client>, Payer, &impl Fields),
        now: Nanos,
    ) -> (Decision, bool, Vec<ExplainedPolicy>) {
        let (claims, asked) = self.claims(keys, (own, met), who);
        let foreseen = limiter.foresee(&claims, now);
        let goes = are_allowed(&claims, &foreseen);
        for ((&policy, claim), foreseen) in asked.iter().zip(&claims[1..]).zip(&foreseen[1..]) {
            let decision = match foreseen {
                Decision::Allowed(standing) if goes && !claim.later => Decision::Allowed(standing.after_take()),
                other => *other,
            };
            self.paid.push(PolicyPayment { policy, charge: claim.charge, decision });
        }
        let explain = |&number: &u32| {
            let at = asked.iter().position(|asked| *asked == number).map(|at| at + 1);
            let claim = at.map(|at| (claims[at].charge, foreseen[at]));
            self.policies.get(number).explained(claim)
        };
        (foreseen[0], goes, met.iter().map(explain).collect())
    }
}

impl Policy {
    /// What is told of it to who asks how a request would go that was to be charged, and of which that was decided.
    fn explained(&self, claim: Option<(Charge, Decision)>) -> ExplainedPolicy {
        let settings = &self.settings;
        let standing = claim.map(|(_, decision)| *decision.standing());
        let (cost, cost_header) = match &settings.cost {
            PolicyCost::Tokens(cost) => (Some(claim.map_or(*cost, |(charge, _)| charge.cost).get()), None),
            PolicyCost::AnswerHeader(name) => (None, Some(name.as_str().to_owned())),
        };
        let refused = claim.is_some_and(|(_, decision)| matches!(decision, Decision::Refused(_)));
        ExplainedPolicy {
            name: settings.name.clone(),
            key: settings.key.to_string(),
            quota: standing.map_or(settings.quota, |standing| standing.quota()),
            cost,
            cost_header,
            shadow: settings.shadow,
            standing,
            enough: standing.is_some_and(|standing| standing.is_enough()) && !refused,
        }
    }
}
