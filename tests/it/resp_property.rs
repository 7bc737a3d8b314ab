//! Properties of the decoder, the builder and the encoder, over random input.

use crate::resp_support;

use proptest::collection::vec;
use proptest::prelude::*;
use resp_support::{Value, scalar};
use vigie::resp::{DecodeError, Decoded, Decoder, Kind, Limits, ReplyBuilder, Want, encode, list};

fn pairs(mut values: Vec<Value>) -> Vec<Value> {
    values.truncate(values.len() / 2 * 2);
    values
}

/// Any reply, with attributes anywhere.
pub fn value() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(5, 40, 6, |inner| {
        let some = vec(inner.clone(), 0..6);
        prop_oneof![
            3 => some.clone().prop_map(|values| Value::Many(Kind::Array, values)),
            2 => some.clone().prop_map(|values| Value::Many(Kind::Map, pairs(values))),
            1 => some.clone().prop_map(|values| Value::Many(Kind::Set, values)),
            1 => (some, inner).prop_map(|(notes, value)| Value::Noted(pairs(notes), Box::new(value))),
        ]
    })
}

/// Without attributes.
fn plain(value: &Value) -> Value {
    match value {
        Value::Many(kind, values) => Value::Many(*kind, values.iter().map(plain).collect()),
        Value::Noted(_, value) => plain(value),
        other => other.clone(),
    }
}

/// The same by way of the builder.
fn build(value: &Value, builder: &mut ReplyBuilder) {
    match value {
        Value::Null => builder.null(),
        Value::Int(value) => builder.int(*value),
        Value::Bool(value) => builder.bool(*value),
        Value::Double(bits) => builder.double(f64::from_bits(*bits)),
        Value::Text(kind, bytes) => builder.text_of(*kind, bytes),
        Value::Noted(_, value) => {
            build(value, builder);
            builder
        }
        Value::Many(kind, values) => {
            match kind {
                Kind::Map => builder.map(),
                Kind::Set => builder.set(),
                Kind::Push => builder.push(),
                _ => builder.array(),
            };
            values.iter().for_each(|value| build(value, builder));
            builder.end()
        }
    };
}

/// All units of the input, cut at these places, and the error that ended it.
fn units(limits: Limits, input: &[u8], cuts: &[usize], want: Want) -> (Vec<Decoded>, Option<DecodeError>, bool) {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut % (input.len() + 1)).collect();
    places.extend([0, input.len()]);
    places.sort_unstable();
    let mut decoder = Decoder::new(limits);
    let mut units = Vec::new();
    for piece in places.windows(2).map(|pair| &input[pair[0]..pair[1]]) {
        let mut at = 0;
        while at < piece.len() {
            match decoder.decode(&piece[at..], want) {
                Ok((used, done)) => {
                    assert!(done.is_some() || at + used == piece.len(), "without a unit all is consumed");
                    at += used;
                    units.extend(done);
                }
                Err(error) => return (units, Some(error), false),
            }
        }
    }
    (units, None, decoder.is_idle())
}

fn encoded(values: &[Value]) -> Vec<u8> {
    let mut out = Vec::new();
    values.iter().for_each(|value| value.encode(&mut out));
    out
}

/// Bytes that often are RESP, nearly.
fn soup() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        4 => "[$*:+%~>|=!,(#_-]-?[0-9]{0,2}\r\n".prop_map(String::into_bytes),
        2 => scalar().prop_map(|value| encoded(&[value])),
        2 => value().prop_map(|value| encoded(&[value])),
        1 => vec(any::<u8>(), 0..4),
        1 => prop::sample::select(&b"$*:+-%~>|=!,(#_?;\r\n0123456789tf"[..]).prop_map(|byte| vec![byte]),
        1 => "[$*%~;][?]\r\n".prop_map(String::into_bytes),
    ];
    vec(part, 0..8).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_reply_reads_back_however_it_is_cut(values in vec(value(), 1..4), cuts in vec(any::<usize>(), 0..8)) {
        let input = encoded(&values);
        let (units, error, is_idle) = units(Limits::default(), &input, &cuts, Want::One);
        prop_assert!(error.is_none() && is_idle);
        prop_assert_eq!(units.len(), values.len());
        for (unit, value) in units.iter().zip(&values) {
            let Decoded::Reply(reply) = unit else { panic!("no reply") };
            prop_assert_eq!(Value::read(reply, 0), plain(value));
            let mut builder = ReplyBuilder::new();
            build(value, &mut builder);
            let built = builder.finish();
            prop_assert_eq!(Value::read(&built, 0), plain(value));
            prop_assert_eq!(built.to_json().unwrap(), reply.to_json().unwrap());
            prop_assert_eq!(Value::read(&reply.subtree(0), 0), plain(value));
        }
    }

    #[test]
    fn byte_by_byte_is_the_same(values in vec(value(), 1..3)) {
        let input = encoded(&values);
        let everywhere: Vec<usize> = (0..input.len()).collect();
        let whole = units(Limits::default(), &input, &[], Want::One);
        prop_assert_eq!(units(Limits::default(), &input, &everywhere, Want::One), whole);
    }

    #[test]
    fn lists_and_pushes_do_not_mix(
        values in vec((prop::option::of(vec(value(), 0..3)), value()), 1..5),
        cuts in vec(any::<usize>(), 0..8),
    ) {
        let (mut input, mut pushes) = (Vec::new(), Vec::new());
        for (push, value) in &values {
            let push = push.clone().map(|values| Value::Many(Kind::Push, values));
            push.iter().chain([value]).for_each(|value| value.encode(&mut input));
            pushes.extend(push.map(|push| plain(&push)));
        }
        let count = values.len() as u32;
        let list = Value::Many(Kind::Array, values.iter().map(|(_, value)| plain(value)).collect());
        for want in [Want::List(count), Want::Skip(count)] {
            let (mut units, error, is_idle) = units(Limits::default(), &input, &cuts, want);
            prop_assert!(error.is_none() && is_idle);
            match units.pop() {
                Some(Decoded::Reply(reply)) => prop_assert_eq!(&Value::read(&reply, 0), &list),
                other => prop_assert!(other == Some(Decoded::Skipped) && want == Want::Skip(count)),
            }
            let received = units.iter().map(|unit| match unit {
                Decoded::Push(reply) => Value::read(reply, 0),
                other => panic!("{other:?} is no push"),
            });
            prop_assert_eq!(received.collect::<Vec<_>>(), pushes.clone());
        }
    }

    #[test]
    fn any_bytes_give_an_answer_and_the_same_one_in_pieces(
        input in soup(), cuts in vec(any::<usize>(), 0..12), count in 0..4u32,
    ) {
        let limits = Limits { max_bytes: 600, max_depth: 6, max_nodes: 90 };
        let want = [Want::One, Want::List(count.max(1)), Want::Skip(count.max(1)), Want::One][count as usize];
        let whole = units(limits, &input, &[], want);
        let pieces = units(limits, &input, &cuts, want);
        prop_assert_eq!(&whole.0, &pieces.0);
        prop_assert_eq!(whole.2, pieces.2);
        match (whole.1, pieces.1) {
            (Some(DecodeError::Protocol(_)), Some(DecodeError::Protocol(_))) => {}
            (whole, pieces) => prop_assert_eq!(whole, pieces),
        }
        for unit in &whole.0 {
            if let Decoded::Reply(reply) | Decoded::Push(reply) = unit {
                prop_assert!(reply.nodes().len() <= limits.max_nodes && reply.data().len() <= limits.max_bytes);
            }
        }
    }

    #[test]
    fn an_encoded_command_is_a_list_of_one(args in vec(vec(any::<u8>(), 0..50), 1..6)) {
        let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
        let mut bytes = Vec::new();
        encode::command(&mut bytes, &args);
        prop_assert_eq!(bytes.len(), encode::command_len(&args));
        let list = list::parse(&bytes).expect("what we encode, we accept");
        let command = list.commands().next().expect("one command");
        prop_assert_eq!(command.args().collect::<Vec<_>>(), args.clone());
        let (_, done) = Decoder::new(Limits::default()).decode(&bytes, Want::One).expect("RESP");
        let Some(Decoded::Reply(reply)) = done else { panic!("whole") };
        prop_assert!(reply.children(0).map(|id| reply.bytes(id).expect("a text")).eq(args));
    }

    #[test]
    fn any_list_is_refused_or_walks_to_its_end(list in soup()) {
        if let Ok(parsed) = list::parse(&list) {
            let end = parsed.commands().map(|command| command.range().end).last();
            prop_assert_eq!(end.unwrap_or(0), list.len());
            prop_assert_eq!(parsed.commands().count(), parsed.len());
        }
    }
}
