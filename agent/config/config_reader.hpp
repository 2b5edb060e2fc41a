// The typed reader: merged text in, Config out.
#pragma once

#include "agent/config/config.hpp"
#include "agent/config/config_layers.hpp"

namespace ghost::agent {

// Every key of `layer` into a Config, defaults elsewhere. A value that can't be read leaves its default and a fault.
[[nodiscard]] Config read_typed(const Layer& layer, FaultList& faults);

// Fills in what one key takes from another, checks the rules that bind several keys, and adds the notes.
void settle(Config& config, const Layer& layer, FaultList& faults);

// That the files of certificates exist and no key is open to others than its owner.
void check_certificate_files(const Config& config, const Layer& layer, FaultList& faults);

}  // namespace ghost::agent
