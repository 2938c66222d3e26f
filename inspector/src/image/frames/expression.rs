//! DWARF expressions in rules, which take nothing but registers and memory.

use super::Activation;
use gimli::{Encoding, EndianSlice, EvaluationResult, Expression, Format, LittleEndian, Value};

/// No rule takes more operations; a damaged one may have a loop.
const MAX_OPERATIONS: u32 = 1000;
/// What the operations are encoded for.
const ENCODING: Encoding = Encoding {
    address_size: 8,
    format: Format::Dwarf32,
    version: 5,
};

/// What an expression comes to that begins with a value on its stack, or with none. `None` where something that it takes is
/// not known, or it is damaged.
pub(super) fn evaluate<E>(
    bytes: &[u8],
    first: Option<u64>,
    at: &Activation,
    word: &mut impl FnMut(u64) -> Result<Option<u64>, E>,
) -> Result<Option<u64>, E> {
    let expression = Expression(EndianSlice::new(bytes, LittleEndian));
    let mut evaluation = expression.evaluation(ENCODING);
    evaluation.set_max_iterations(MAX_OPERATIONS);
    if let Some(first) = first {
        evaluation.set_initial_value(first);
    }
    let mut state = evaluation.evaluate();
    loop {
        state = match state {
            Ok(EvaluationResult::Complete) => break,
            Ok(EvaluationResult::RequiresRegister { register, .. }) => {
                let Some(value) = at.register(register.0) else {
                    return Ok(None);
                };
                evaluation.resume_with_register(Value::Generic(value))
            }
            Ok(EvaluationResult::RequiresMemory {
                address, size: 8, ..
            }) => {
                let Some(value) = word(address)? else {
                    return Ok(None);
                };
                evaluation.resume_with_memory(Value::Generic(value))
            }
            _ => return Ok(None),
        };
    }
    let result = evaluation.value_result();
    Ok(match result {
        Some(Value::Generic(value) | Value::U64(value)) => Some(value),
        _ => None,
    })
}
