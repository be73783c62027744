//! A secret that arrives through HTTP: made or judged here, sealed, and stored sealed. The database never has it.

use super::seat::{Holder, Role, Transaction};
use super::{DbError, Offer, OfferFor, Params};
use crate::config::Secret;
use crate::secrets::{self, Form, Secrets};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use tokio_postgres::types::Type;

/// A request without its secret, and the secret to be shown this once.
pub(super) struct Arriving {
    pub(super) request: String,
    pub(super) secret: Secret,
}

type Members = BTreeMap<String, Box<RawValue>>;

impl Transaction {
    /// Offers a sealed secret to the operation that follows in this transaction, if it is one that gives a
    /// subscription a secret and there is a key to seal with. To be called before the token's role is taken: only
    /// the relay's own may offer.
    pub(super) async fn offer(
        &self,
        holder: &Holder,
        operation: &str,
        request: &str,
        secrets: &Secrets,
    ) -> Result<Option<Arriving>, DbError> {
        let gives_secret = matches!(operation, "create_webhook" | "rotate_secret") && holder.role == Role::Operator;
        if !gives_secret || secrets.keyring.current().is_none() {
            return Ok(None);
        }
        let unreadable = |_| DbError::Pool("the request is no JSON object".into());
        let mut request: Members = serde_json::from_str(request).map_err(unreadable)?;
        let body = request.get("body").map_or("{}", |body| body.get());
        let mut body: Members = serde_json::from_str(body).map_err(unreadable)?;
        let text = |member: Option<&RawValue>| member.and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
        let given = text(body.remove("secret").as_deref()).map(Secret::new);
        if text(body.get("secret_ref").map(AsRef::as_ref)).is_some() {
            return match given {
                None => Ok(None),
                Some(_) => Err(secrets::Refusal::given_twice().into()),
            };
        }
        let signature = text(body.get("signature").map(AsRef::as_ref));
        let subscription_id = request.get("subscription_id").and_then(|raw| raw.get().parse::<i64>().ok());
        // A subscription that is not there, or is another tenant's: the operation says so.
        let Some(offer_for) = self.offer_for(subscription_id, holder.tenant_id.as_deref()).await? else {
            return Ok(None);
        };
        let profile = offer_for.signature.or(signature).unwrap_or_else(|| "standard".to_owned());
        let failed = |error: secrets::SealError| DbError::Pool(error.to_string());
        let secret = match given {
            Some(secret) => {
                secrets::check(&profile, secret.expose())?;
                secret
            }
            None => secrets::make(&profile).map_err(failed)?,
        };
        let key_id = secrets::key_id(secret.expose());
        let sealed = secrets.keyring.seal(offer_for.subscription_id, &key_id, &secret);
        let (sealed, sealed_with) = sealed.map_err(failed)?;
        self.offer_key(&Offer {
            subscription_id: offer_for.subscription_id,
            key_id: &key_id,
            form: Form::of(secret.expose()).as_str(),
            public_key: secrets::public_key(secret.expose()).filter(|_| profile == "standard-ed25519").as_deref(),
            sealed: &sealed,
            sealed_with,
        })
        .await?;
        let body = serde_json::value::to_raw_value(&body).map_err(unreadable)?;
        request.insert("body".into(), body);
        Ok(Some(Arriving { request: serde_json::to_string(&request).map_err(unreadable)?, secret }))
    }

    async fn offer_for(&self, subscription_id: Option<i64>, tenant: Option<&str>) -> Result<Option<OfferFor>, DbError> {
        let parameters: &Params<'_> = &[(&subscription_id, Type::INT8), (&tenant, Type::TEXT)];
        let rows = self.query("select id, signature from outbox_relay.offer_for($1, $2)", parameters).await?;
        Ok(rows.first().map(|row| OfferFor { subscription_id: row.get("id"), signature: row.get("signature") }))
    }

    async fn offer_key(&self, offer: &Offer<'_>) -> Result<(), DbError> {
        let parameters: &Params<'_> = &[
            (&offer.subscription_id, Type::INT8),
            (&offer.key_id, Type::TEXT),
            (&offer.form, Type::TEXT),
            (&offer.public_key, Type::TEXT),
            (&offer.sealed, Type::BYTEA),
            (&offer.sealed_with, Type::TEXT),
        ];
        self.query("select outbox_relay.offer_key($1, $2, $3, $4, $5, $6)", parameters).await.map(drop)
    }
}

/// The answer with the secret in its place.
pub(super) fn shown(answer: String, secret: &Secret) -> String {
    let Ok(mut members) = serde_json::from_str::<Members>(&answer) else { return answer };
    if let Ok(secret) = serde_json::value::to_raw_value(secret.expose()) {
        members.insert("secret".into(), secret);
    }
    serde_json::to_string(&members).unwrap_or(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_keeps_its_digits_and_gets_its_secret() {
        let answer = r#"{"webhook" : {"rate_limit" : 0.10}, "secret" : null, "key_id" : "k"}"#.to_owned();
        let shown = shown(answer, &Secret::new("whsec_\"x".into()));
        assert_eq!(shown, r#"{"key_id":"k","secret":"whsec_\"x","webhook":{"rate_limit" : 0.10}}"#);
    }
}
