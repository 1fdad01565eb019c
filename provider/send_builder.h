// The extended post interface of a QP (ibv_wr_start ... ibv_wr_complete).
#pragma once

#include "objects.h"

namespace tbt::provider {

// The operations that can be asked for; create_qp_ex refuses others.
uint64_t supported_send_ops(QpType type) noexcept;

// Gives `qp` the functions of the interface and room to collect as many work requests as its send
// queue holds. False: out of memory.
bool attach_send_builder(Qp& qp, const QpCaps& granted) noexcept;
void delete_send_builder(SendBuilder* builder) noexcept;

}  // namespace tbt::provider
