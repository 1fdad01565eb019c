// Which queue pair transitions exist, which attributes each needs and allows, and which values are
// legal. (IBTA vol. 1, 11.2.5.2 table 91; conformance list C-020 to C-024.)
#pragma once

#include <cstdint>

#include "tbt/status.h"
#include "tbt/types.h"

namespace tbt::verbs {

// Checks a modify call against the present state: the edge, the mask and the values. EINVAL with a
// text.
Status check_modify(QpType type, QpState current, const QpAttr& attr, uint32_t mask) noexcept;

// The state that the call leads to.
QpState target_state(QpState current, const QpAttr& attr, uint32_t mask) noexcept;

}  // namespace tbt::verbs
