//! What a request would pay into policies, looked at and not paid: for whoever asks how it would go, or how its caller
//! stands.

use std::sync::Arc;

use http::HeaderMap;

use super::{PaidPolicies, Policies, Policy, PolicyPayment};
use crate::client::Client;
use crate::limit::{Charge, Decision, KeyMaker, Limiter, Nanos, Payer, PolicyId, Standing};
use crate::proxy::gate::policy_settings::{PolicyCost, PolicyKey};
use crate::proxy::wire::lines::Fields;
use crate::telemetry::ExplainedPolicy;

impl Policies {
    /// Those in which clients have buckets of their own.
    pub fn of_clients(&self) -> impl Iterator<Item = PolicyId> {
        self.all.iter().filter(|policy| policy.settings.key == PolicyKey::Client).map(|policy| policy.id)
    }

    /// How the caller's own buckets stand, its client's and its address's, of policies that are not on trial.
    pub(in crate::proxy::gate) fn standings(
        &self,
        (limiter, keys): (&dyn Limiter, &KeyMaker),
        (client, payer): (Option<&Client>, Payer),
        now: Nanos,
    ) -> Vec<(&str, Standing)> {
        let own = |policy: &&Policy| matches!(policy.settings.key, PolicyKey::Client | PolicyKey::Address);
        let standing =
            |policy: &'_ Policy| policy.charge(keys, (client, payer, &HeaderMap::new())).map(look(limiter, now));
        let told = self.all.iter().filter(own).filter(|policy| !policy.settings.shadow);
        told.filter_map(|policy| Some((policy.settings.name.as_str(), standing(policy)?))).collect()
    }
}

/// Looks at the buckets that charges are of.
fn look(limiter: &dyn Limiter, now: Nanos) -> impl Fn(Charge) -> Standing {
    move |charge| limiter.peek(charge.key, charge.quota, now).for_cost(charge.cost.get())
}

impl PaidPolicies {
    /// What a caller would have to pay into the policies that are `met`. As [`pay`](Self::pay), but nothing is taken
    /// and nothing counted.
    pub(in crate::proxy::gate) fn look(
        &mut self,
        (limiter, keys): (&dyn Limiter, &KeyMaker),
        met: &[u32],
        who: (Option<&Client>, Payer, &impl Fields),
        now: Nanos,
    ) -> Vec<ExplainedPolicy> {
        let policies = Arc::clone(&self.policies);
        let mut explained = Vec::new();
        for &number in met {
            let settings = &policies.get(number).settings;
            let charge = policies.get(number).charge(keys, who);
            let standing = charge.map(look(limiter, now));
            if let Some((charge, standing)) = charge.zip(standing) {
                let decision =
                    if standing.is_enough() { Decision::Allowed(standing) } else { Decision::Refused(standing) };
                self.paid.push(PolicyPayment { policy: number, charge, decision });
            }
            let (cost, cost_header) = match &settings.cost {
                PolicyCost::Tokens(cost) => (Some(charge.map_or(*cost, |charge| charge.cost).get()), None),
                PolicyCost::AnswerHeader(name) => (None, Some(name.as_str().to_owned())),
            };
            explained.push(ExplainedPolicy {
                name: settings.name.clone(),
                key: settings.key.to_string(),
                quota: standing.map_or(settings.quota, |standing| standing.quota()),
                cost,
                cost_header,
                shadow: settings.shadow,
                standing,
            });
        }
        explained
    }

    /// Takes what was looked at as paid: how the buckets would stand then.
    pub(in crate::proxy::gate) fn after_take(&mut self) {
        for payment in &mut self.paid {
            let told = matches!(self.policies.get(payment.policy).settings.cost, PolicyCost::AnswerHeader(_));
            if let (Decision::Allowed(standing), false) = (payment.decision, told) {
                payment.decision = Decision::Allowed(standing.after_take());
            }
        }
    }
}
