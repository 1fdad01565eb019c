# Writes the version script of the front door, and the aliases that go with it.
#   tbt_write_export_map(MAP ALIASES)
# A library that is loaded beside us (a provider plugin, librdmacm) demands version nodes of "libibverbs.so.1", and
# the loader looks for them in ours: every node that one may demand exists, most of them empty.

set(TBT_VERBS_1.0 ibv_create_comp_channel ibv_destroy_comp_channel)
set(TBT_VERBS_1.1
    ibv_alloc_pd ibv_attach_mcast ibv_close_device ibv_create_ah ibv_create_ah_from_wc ibv_create_cq ibv_create_qp
    ibv_create_srq ibv_dealloc_pd ibv_dereg_mr ibv_destroy_ah ibv_destroy_cq ibv_destroy_qp ibv_destroy_srq
    ibv_detach_mcast ibv_free_device_list ibv_get_async_event ibv_get_cq_event ibv_get_device_guid
    ibv_get_device_list ibv_init_ah_from_wc ibv_modify_qp ibv_modify_srq ibv_open_device ibv_query_device
    ibv_query_gid ibv_query_pkey ibv_query_port ibv_query_qp ibv_query_srq ibv_reg_mr ibv_rereg_mr ibv_resize_cq
    ibv_resolve_eth_l2_from_gid)
set(TBT_VERBS_1.5 ibv_get_pkey_index)
set(TBT_VERBS_1.6 ibv_qp_to_qp_ex)
set(TBT_VERBS_1.7 ibv_reg_mr_iova)
set(TBT_VERBS_1.8 ibv_reg_mr_iova2)
set(TBT_VERBS_1.9 ibv_get_device_index)
set(TBT_VERBS_1.10 ibv_import_device)
set(TBT_VERBS_1.11 _ibv_query_gid_ex _ibv_query_gid_table)
set(TBT_VERBS_1.12 ibv_reg_dmabuf_mr)
set(TBT_VERBS_1.14 ibv_query_qp_data_in_order)
set(TBT_VERBS_1.15 ibv_reg_mr_ex)
set(TBT_VERBS_1.16 ibv_query_port_speed)
set(TBT_VERBS_1.17 ibv_alloc_buf ibv_free_buf ibv_reg_buf_mr)
set(TBT_PUBLIC_NODE_LAST 60)
set(TBT_PRIVATE_NODE_FIRST 13)
set(TBT_PRIVATE_NODE_LAST 199)
set(TBT_PRIVATE_NODE_DEFAULT 34)

function(tbt_write_export_map map aliases)
  set(script "")
  set(parent "")
  foreach(n RANGE ${TBT_PUBLIC_NODE_LAST})
    string(APPEND script "IBVERBS_1.${n} {\n")
    if(TBT_VERBS_1.${n})
      list(JOIN TBT_VERBS_1.${n} ";\n    " names)
      string(APPEND script "  global:\n    ${names};\n")
    endif()
    if(n EQUAL 0)
      string(APPEND script "  local:\n    *;\n")
    endif()
    string(APPEND script "}${parent};\n")
    set(parent " IBVERBS_1.${n}")
  endforeach()
  set(symbols "")
  foreach(n RANGE ${TBT_PRIVATE_NODE_FIRST} ${TBT_PRIVATE_NODE_LAST})
    string(APPEND script "IBVERBS_PRIVATE_${n} {\n};\n")
    set(at "@")
    if(n EQUAL TBT_PRIVATE_NODE_DEFAULT)
      set(at "@@")
    endif()
    string(APPEND symbols "__asm__(\".globl tbt_gid_type_${n}\\n.set tbt_gid_type_${n}, tbt_query_gid_type\\n\"\n"
                          "        \".symver tbt_gid_type_${n}, ibv_query_gid_type${at}IBVERBS_PRIVATE_${n}\");\n")
  endforeach()
  file(CONFIGURE OUTPUT ${map} CONTENT "${script}" @ONLY)
  file(CONFIGURE OUTPUT ${aliases} CONTENT "${symbols}" @ONLY)
endfunction()
