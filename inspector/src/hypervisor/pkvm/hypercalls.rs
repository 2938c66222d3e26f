//! What the host's hypercalls are called.

use crate::image::kernel::Kernel;
use std::collections::BTreeMap;

/// The functions that a host may call, by number: `enum __kvm_host_smccc_func`. Before the enumeration had a name (5.15)
/// none is known.
pub(super) fn names(kernel: &mut Kernel) -> BTreeMap<u64, String> {
    let enumerators = kernel.enumerators("__kvm_host_smccc_func");
    enumerators
        .into_iter()
        .flatten()
        .filter_map(function)
        .collect()
}

/// The function that an enumerator stands for. Others mark where the functions of one phase of pKVM begin and end
/// (`…_MIN_PKVM`, `…_MAX`, `__after_…`, since the host's calls are told apart by phase); functions have small letters.
fn function((enumerator, number): (String, i64)) -> Option<(u64, String)> {
    let name = enumerator.strip_prefix("__KVM_HOST_SMCCC_FUNC_")?;
    let is_function = name.bytes().any(|byte| byte.is_ascii_lowercase());
    is_function.then_some((u64::try_from(number).ok()?, name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_have_names_and_marks_have_none() {
        for (enumerator, number, expected) in [
            (
                "__KVM_HOST_SMCCC_FUNC___pkvm_host_share_hyp",
                29,
                Some((29, "__pkvm_host_share_hyp")),
            ),
            (
                "__KVM_HOST_SMCCC_FUNC___kvm_hyp_init",
                0,
                Some((0, "__kvm_hyp_init")),
            ),
            ("__KVM_HOST_SMCCC_FUNC_MIN_PKVM", 26, None),
            ("__KVM_HOST_SMCCC_FUNC_MAX", 63, None),
            ("__after___KVM_HOST_SMCCC_FUNC_MIN_PKVM", 25, None),
            ("__KVM_HOST_SMCCC_FUNC___kvm_hyp_init", -1, None),
        ] {
            let found = function((enumerator.to_owned(), number));
            let expected = expected.map(|(number, name)| (number, name.to_owned()));
            assert_eq!(found, expected, "{enumerator}");
        }
    }
}
