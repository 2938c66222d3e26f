//! VMs and their vCPUs.

use super::{Cell, Role, Table, address, address_or_dash, dash, dim, plain, size_text};
use crate::model::{System, Vm, VmState};

/// Every VM as a row.
pub fn vms_table(system: &System) -> Table {
    let mut table = Table::new(&[
        "VM",
        "PROTECTED",
        "VM STATE",
        "VMID",
        "VCPUS",
        "OWNED",
        "SHARED",
        "BORROWED",
        "POISONED",
        "PA",
    ]);
    for vm in &system.vms {
        let [owned, shared, borrowed, poisoned] = pages(vm);
        table.rows.push(vec![
            Cell::new(Role::Guest, format!("{:#x}", vm.handle)),
            protected(vm),
            state(vm.state),
            vm.vmid.map_or_else(dash, |vmid| plain(vmid.to_string())),
            plain(vm.vcpus.len().to_string()),
            owned,
            shared,
            borrowed,
            poisoned,
            address_or_dash(vm.pa),
        ]);
    }
    table
}

/// Every vCPU of every VM as a row.
pub fn vcpus_table(system: &System) -> Table {
    let mut table = Table::new(&["VM", "VCPU", "PA", "CPU"]);
    for vm in &system.vms {
        for vcpu in &vm.vcpus {
            let cpu = |cpu: usize| Cell::new(Role::Active, cpu.to_string());
            table.rows.push(vec![
                Cell::new(Role::Guest, format!("{:#x}", vm.handle)),
                plain(vcpu.number.to_string()),
                address_or_dash(vcpu.pa),
                vcpu.cpu.map_or_else(dash, cpu),
            ]);
        }
    }
    table
}

/// Everything about one VM, as rows of label and value.
pub fn vm_table(system: &System, vm: &Vm) -> Table {
    let mut table = Table::new(&["VM", ""]);
    let mut row = |label: &str, value: Cell| table.rows.push(vec![dim(label), value]);
    row(
        "handle",
        Cell::new(Role::Guest, format!("{:#x}", vm.handle)),
    );
    row("state", state(vm.state));
    row("protected", protected(vm));
    row(
        "VMID",
        vm.vmid.map_or_else(dash, |vmid| plain(vmid.to_string())),
    );
    row("pa", address_or_dash(vm.pa));
    let name = vm.regime_name();
    match system.regimes.iter().find(|regime| regime.name == name) {
        Some(captured) => {
            let regime = &captured.regime;
            row("root", address(regime.root));
            let geometry = format!(
                "{name}, level {}, {} bits, {} tables",
                regime.start_level,
                regime.ia_bits,
                captured.tables.len()
            );
            row("stage 2", plain(geometry));
        }
        None => row("stage 2", dim("its tables were not captured")),
    }
    let names = ["owned", "shared", "borrowed", "poisoned"];
    for (name, bytes) in names.into_iter().zip(pages(vm)) {
        row(name, bytes);
    }
    for vcpu in &vm.vcpus {
        let at = vcpu.pa.map(|pa| format!("at {pa:#x}"));
        let (role, on) = match vcpu.cpu {
            Some(cpu) => (Role::Active, format!("loaded on CPU {cpu}")),
            None => (Role::Dim, "not loaded".to_owned()),
        };
        let text: Vec<_> = [Some(on), at].into_iter().flatten().collect();
        let label = format!("vCPU {}", vcpu.number);
        row(&label, Cell::new(role, text.join(", ")));
    }
    table
}

/// Bytes owned, lent, borrowed and poisoned.
fn pages(vm: &Vm) -> [Cell; 4] {
    let Some(pages) = vm.pages else {
        return [dash(), dash(), dash(), dash()];
    };
    let cell = |role, bytes: u64| {
        let role = if bytes == 0 { Role::Dim } else { role };
        Cell::new(role, size_text(bytes))
    };
    [
        cell(Role::Guest, pages.owned),
        cell(Role::SharedOwned, pages.shared),
        cell(Role::SharedBorrowed, pages.borrowed),
        cell(Role::Problem, pages.poisoned),
    ]
}

fn protected(vm: &Vm) -> Cell {
    vm.protected
        .map_or_else(dash, |yes| plain(if yes { "yes" } else { "no" }))
}

fn state(state: VmState) -> Cell {
    let role = match state {
        VmState::Initialised | VmState::Created => Role::Plain,
        VmState::Dying => Role::Active,
        VmState::Reserved | VmState::Unknown => Role::Dim,
    };
    Cell::new(role, state.to_string())
}
