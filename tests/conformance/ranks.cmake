# Conformance over several ranks, on every exact mesh: a covering set of world sizes with the other
# tests, more with `make test-hybrids`.
file(GLOB loop_cases CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR} cases/distrifusion/*/case.json)
list(TRANSFORM loop_cases REPLACE "/case.json$" "")
list(FILTER loop_cases INCLUDE REGEX "_single$")
# Pipelines of stages, through which a picture goes in parts: on every mesh with any number of stages.
file(GLOB pipeline_cases CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR} cases/pipefusion/*/case.json cases/pipefusion_cold/*/case.json
     cases/pipefusion_multistep/*/case.json)
list(TRANSFORM pipeline_cases REPLACE "/case.json$" "")
# Naive and displaced patches: on as many ranks as a case has.
set(distrifusion ${CMAKE_CURRENT_SOURCE_DIR}/cases/distrifusion/distrifusion)
file(GLOB patches_2 ${distrifusion}_naive2_* ${distrifusion}_patch2_* ${distrifusion}_sd15_patch2_* cases/displaced/*_p2_* cases/pcpp/*_p2_*)
file(GLOB patches_3 cases/displaced/*_p3_* cases/pcpp/*_p3_*)
file(GLOB patches_4 ${distrifusion}_cfg2_* ${distrifusion}_patch4_* cases/displaced/*_p4_* cases/pcpp/*_p4_*)
file(GLOB spread_cases CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR} cases/sd3 cases/sd35 cases/sd3_crop cases/flux_* cases/pixart_*
     cases/hunyuandit* cases/unet_* cases/vae_*)
foreach(ranks 1 2 3 4)
  add_test(NAME conformance-${ranks} COMMAND ${MPIEXEC_EXECUTABLE} -n ${ranks} $<TARGET_FILE:conformance> ${loop_cases} ${spread_cases}
           WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(conformance-${ranks} PROPERTIES ENVIRONMENT "${mpi_environment}" TIMEOUT 900)
endforeach()
foreach(ranks 2 3 4)
  add_test(NAME conformance-patches-${ranks} COMMAND ${MPIEXEC_EXECUTABLE} -n ${ranks} $<TARGET_FILE:conformance> ${patches_${ranks}}
           WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(conformance-patches-${ranks} PROPERTIES ENVIRONMENT "${mpi_environment}" TIMEOUT 900)
endforeach()
foreach(ranks 1 2 3 4)
  add_test(NAME conformance-pipefusion-${ranks} COMMAND ${MPIEXEC_EXECUTABLE} -n ${ranks} $<TARGET_FILE:conformance> ${pipeline_cases}
           WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(conformance-pipefusion-${ranks} PROPERTIES ENVIRONMENT "${mpi_environment}" TIMEOUT 900)
endforeach()
# More stages than parts, and more parts than stages, on 8 ranks.
set(pipefusion ${CMAKE_CURRENT_SOURCE_DIR}/cases/pipefusion)
set(pipeline_cases_4 --pipefusion 4 ${pipefusion}/pipefusion_p3_w1 ${pipefusion}_multistep/hunyuandit_unipc_p4_w1)
set(pipeline_cases_2 --pipefusion 2 ${pipefusion}/pipefusion_p8_w1 ${pipefusion}_multistep/pixart_dpmpp_2m_p4_w1)
set(pipeline_cases_flux --cfg 1 --pipefusion 4 ${pipefusion}/pipefusion_flux_p2_w1 ${pipefusion}/pipefusion_flux_p5_w1)
foreach(set 2 4 flux)
  add_test(NAME conformance-pipefusion-8-${set} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
           COMMAND ${MPIEXEC_EXECUTABLE} -n 8 $<TARGET_FILE:conformance> ${pipeline_cases_${set}})
  set_tests_properties(conformance-pipefusion-8-${set} PROPERTIES ENVIRONMENT "${mpi_environment}" TIMEOUT 900)
endforeach()
add_test(NAME conformance-pipefusion-bf16 COMMAND ${MPIEXEC_EXECUTABLE} -n 2 $<TARGET_FILE:conformance> --dtype bf16 --pipefusion 2 ${pipeline_cases}
         WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
set_tests_properties(conformance-pipefusion-bf16 PROPERTIES ENVIRONMENT "${mpi_environment}" TIMEOUT 900)
add_test(NAME conformance-delay COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/conformance/test_delay.sh $<TARGET_FILE:conformance>
         WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
set_tests_properties(conformance-delay PROPERTIES ENVIRONMENT "${mpi_environment}" TIMEOUT 900)
foreach(ranks 1 2 3 4 6 8)
  add_custom_command(TARGET run_hybrids POST_BUILD WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
                     COMMAND ${CMAKE_COMMAND} -E env ${mpi_environment} ${MPIEXEC_EXECUTABLE} -n ${ranks} $<TARGET_FILE:conformance> ${loop_cases} ${spread_cases})
endforeach()
foreach(ranks 1 2 3 4 5 6 7 8)
  add_custom_command(TARGET run_hybrids POST_BUILD WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
                     COMMAND ${CMAKE_COMMAND} -E env ${mpi_environment} ${MPIEXEC_EXECUTABLE} -n ${ranks} $<TARGET_FILE:conformance> ${pipeline_cases})
endforeach()
add_dependencies(run_hybrids conformance)
# Unequal ranks: the same results, whatever each one's part is.
foreach(weights 3,1 1,4,2 4,1,2,3)
  string(REPLACE "," ";" numbers ${weights})
  list(LENGTH numbers ranks)
  add_test(NAME conformance-weights-${ranks} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
           COMMAND ${MPIEXEC_EXECUTABLE} -n ${ranks} $<TARGET_FILE:conformance> --rank-weights ${weights} ${spread_cases}
                   ${pipefusion}/pipefusion_p1_w0 ${pipefusion}/pipefusion_flux_p1_w0 ${pipefusion}/pipefusion_p4_w1)
  set_tests_properties(conformance-weights-${ranks} PROPERTIES ENVIRONMENT "${mpi_environment}" TIMEOUT 900)
endforeach()
# Hybrids of every strategy on the fenced backend, whose tensors reach other ranks through the
# host's memory.
set(fenced_2 ${PROJECT_SOURCE_DIR}/tests/cases/displaced/displaced_sd3_p2_w1_split ${distrifusion}_patch2_corrected ${distrifusion}_naive2_alternate
    ${PROJECT_SOURCE_DIR}/tests/cases/step_cache/fbcache_pixart)
set(fenced_4 ${PROJECT_SOURCE_DIR}/tests/cases/sd3 ${PROJECT_SOURCE_DIR}/tests/cases/vae_sd ${pipefusion}/pipefusion_p3_w1
    ${PROJECT_SOURCE_DIR}/tests/cases/pcpp/pcpp_sd3_p4_w1 ${PROJECT_SOURCE_DIR}/tests/cases/pcpp/pcpp_pixart_p4_w1
    ${PROJECT_SOURCE_DIR}/tests/cases/pcpp/pcpp_sd15_p4_w2)
foreach(ranks 2 4)
  add_test(NAME conformance-fenced-${ranks} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
           COMMAND ${MPIEXEC_EXECUTABLE} -n ${ranks} $<TARGET_FILE:conformance> --backend fenced ${fenced_${ranks}})
  set_tests_properties(conformance-fenced-${ranks} PROPERTIES ENVIRONMENT "${mpi_environment}" TIMEOUT 900)
endforeach()
